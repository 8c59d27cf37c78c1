// What happens around the explorer: its width, the theme of the page, the life of the kernel.

import { listenTo } from "./elements.js";
import { zoomOf } from "./projector.js";
import { inksOf } from "./views.js";

const TALL = 536; // pixels from the slider to the end of the charts

export function watchSize(page, resized) {
  const observer = new ResizeObserver(() => {
    const width = page.root.clientWidth;
    const layout = width >= 1000 ? "wide" : width >= 840 ? "medium" : width >= 560 ? "small" : "stack";
    if (page.root.dataset.layout !== layout) page.root.dataset.layout = layout;
    // The charts take what is left of a laptop's window below the controls.
    const above = (page.main.getBoundingClientRect().top - page.root.getBoundingClientRect().top) / zoomOf(page.root);
    page.root.style.setProperty("--dgx-main", `${Math.max(360, Math.round(TALL - above))}px`);
    // The sentence stays in view below the first line.
    page.root.style.setProperty("--dgx-first", `${page.controls.box.firstChild.offsetHeight}px`);
    resized();
    page.schedule();
  });
  [page.root, page.main, page.strip.scroll, page.controls.box.firstChild].forEach((watched) => observer.observe(watched));
  return () => observer.disconnect();
}

// JupyterLab marks its theme on the body; a change needs new inks, and the charts once more.
export function watchTheme(page, again) {
  const change = () => {
    const { dark } = inksOf(page.root);
    if (dark === page.inks?.dark) return;
    page.inks = null;
    again();
    page.schedule();
  };
  const observer = new MutationObserver(() => setTimeout(change, 50));
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", change);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", change);
  };
}

const kernelOf = (page) => page.model.widget_manager?.kernel;

export function isGone(page) {
  if (page.fixed.offline || !page.model.widget_manager || !("kernel" in page.model.widget_manager)) return page.gone;
  const kernel = kernelOf(page);
  // A kernel deleted elsewhere is first only unreachable; this counts after silence, otherwise it may be temporary.
  const silent = page.silent && (kernel?.connectionStatus ?? "connected") !== "connected";
  return page.lost || silent || !kernel || kernel.isDisposed || ["dead", "terminating"].includes(kernel.status);
}

export function watchKernel(page) {
  const check = () => {
    const gone = isGone(page);
    if (gone === page.gone) return;
    page.gone = gone;
    page.schedule();
  };
  // The model lost its comm: the kernel restarted, or the widget was closed.
  const lost = () => {
    page.lost = true;
    page.gone = true;
    page.schedule();
  };
  // A kernel that another program restarts keeps its connection and its comm here, but each process has a session of its own.
  const heard = (_, { header, content }) => {
    const works = header.msg_type === "status" && ["busy", "idle"].includes(content.execution_state);
    if (works || header.msg_type === "comm_msg") page.session ??= header.session;
    if (works && header.session !== page.session) lost();
  };
  const restarts = (_, status) => ["restarting", "autorestarting"].includes(status) && lost();
  const { statusChanged, connectionStatusChanged, disposed, iopubMessage } = kernelOf(page) ?? {};
  const signals = [[statusChanged, check], [statusChanged, restarts], [connectionStatusChanged, check], [disposed, check], [iopubMessage, heard]];
  for (const [signal, act] of signals) signal?.connect(act);
  const silence = listenTo(page.model, { comm_live_update: lost, destroy: lost });
  return () => {
    for (const [signal, act] of signals) signal?.disconnect(act);
    silence();
  };
}
