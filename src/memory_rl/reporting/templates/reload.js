// Of a page that follows a sweep: loads it again some seconds after it is drawn, where it was scrolled to.
(() => {
  const root = document.documentElement;
  const keep = (at) => { try { sessionStorage.setItem("scrolled", at); } catch { /* no storage, no place */ } };
  const kept = () => { try { return Number(sessionStorage.getItem("scrolled")); } catch { return 0; } };
  const again = (seconds) => setTimeout(() => { keep(window.scrollY); location.reload(); }, 1000 * seconds);
  if (!document.getElementById("data")) { again(SECONDS); return; }
  again(90);
  const look = () => {
    if (root.dataset.drawn !== "yes") return false;
    window.scrollTo(0, kept());
    again(SECONDS);
    return true;
  };
  if (!look()) new MutationObserver((_, watcher) => look() && watcher.disconnect()).observe(root, { attributes: true });
})();
