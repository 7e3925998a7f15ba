// Tooltips: <title> children become one styled tip that also follows the keyboard.
const tip = {
  box: one("#tip"),
  take(inside) {
    for (const title of all("g > title, path > title", inside)) {
      title.parentNode.dataset.tip = title.textContent;
      title.remove();
    }
  },
  show(text, x, y) {
    tip.box.textContent = text;
    tip.box.hidden = false;
    const { width, height } = tip.box.getBoundingClientRect();
    const left = x + 16 + width > innerWidth ? x - width - 12 : x + 16;
    const top = y + 16 + height > innerHeight ? y - height - 12 : y + 16;
    tip.box.style.left = `${Math.max(4, left)}px`;
    tip.box.style.top = `${Math.max(4, top)}px`;
  },
  hide() { tip.box.hidden = true; },
};
all("figure.chart").forEach(tip.take);
document.addEventListener("pointermove", (event) => {
  const marked = event.target.closest?.("[data-tip]");
  if (marked) tip.show(marked.dataset.tip, event.clientX, event.clientY); else tip.hide();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hide(); });
