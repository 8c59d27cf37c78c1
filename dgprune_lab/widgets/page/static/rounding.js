// Numbers as text. Half a unit is rounded away from zero, as in Python (core/rounding.py). Nine digits decide, because
// 100 * 0.285 is 28.499999999999996. No DOM in here.

export function rounded(value, decimals = 0) {
  const scale = 10 ** decimals;
  return (Math.sign(value) * Math.floor(Number((Math.abs(value) * scale).toPrecision(9)) + 0.5)) / scale || 0;
}

export const percent = (share, decimals = 0) => `${rounded(100 * share, decimals)} %`;
