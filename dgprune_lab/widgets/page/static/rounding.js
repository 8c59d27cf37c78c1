// Numbers as text. Half a unit is rounded away from zero, as in Python (core/rounding.py). Twelve digits decide, since
// 100 * 0.285 is 28.499999999999996. No DOM in here.

export function rounded(value, decimals = 0) {
  const scale = 10 ** decimals;
  return (Math.sign(value) * Math.floor(Number((Math.abs(value) * scale).toPrecision(12)) + 0.5)) / scale || 0;
}

export const percent = (share, decimals = 0) => `${rounded(100 * share, decimals)} %`;
