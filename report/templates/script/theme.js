"use strict";
const root = document.documentElement;
const one = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
window.addEventListener("error", (event) => { root.dataset.scriptError = event.message; });

// Theme: the system's until the reader chooses; storage may be forbidden for file:// pages.
const theme = {
  button: one("#theme"),
  stored() { try { return localStorage.getItem("infermark-theme"); } catch { return null; } },
  store(name) { try { localStorage.setItem("infermark-theme", name); } catch { /* the choice lasts for this visit */ } },
  current() { return root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"); },
  set(name) {
    root.dataset.theme = name;
    theme.button.textContent = name === "dark" ? "☀ Light" : "☾ Dark";
    theme.button.setAttribute("aria-label", `Switch to the ${name === "dark" ? "light" : "dark"} theme`);
  },
};
theme.set(theme.stored() || theme.current());
theme.button.hidden = false;
theme.button.addEventListener("click", () => {
  theme.set(theme.current() === "dark" ? "light" : "dark");
  theme.store(theme.current());
});

// The contents show where the reader is.
const links = new Map(all("header.bar nav a").map((link) => [link.getAttribute("href").slice(1), link]));
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) links.get(target.id)?.classList.toggle("here", isIntersecting);
}, { rootMargin: "-20% 0px -70% 0px" });
all("section.part").forEach((section) => watcher.observe(section));

// Tables print as they stand: this opens or folds all of them.
const fold = one("#fold");
if (fold) {
  fold.hidden = false;
  fold.addEventListener("click", () => {
    const open = fold.textContent.startsWith("Open");
    all("#tables details.metric").forEach((details) => { details.open = open; });
    fold.textContent = open ? "Fold all tables" : "Open all tables";
  });
}
