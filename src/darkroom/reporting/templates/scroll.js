// MLflow shows this page in a frame in which links lead nowhere.
document.addEventListener("click", (event) => {
  const link = window === window.top ? null : event.target.closest("a[href^='#']");
  const section = link && document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (!section) return;
  event.preventDefault();
  section.tabIndex = -1;
  section.focus({ preventScroll: true });
  section.scrollIntoView();
});
