// Scales, ticks and number text: the same rules as the drawings made without a script.
const SVG = "http://www.w3.org/2000/svg";
const draw = (name, attributes, ...children) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const raised = (n) => [...String(n)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
const digits = (value, n = 4) => {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -4 || size >= 12) return `${Number((value / 10 ** size).toFixed(n - 2))}×10${raised(size)}`;
  const text = value.toFixed(Number.isInteger(value) ? 0 : Math.max(0, n - 1 - size));
  const [whole, rest] = text.replace("-", "−").split(".");
  const grouped = Math.abs(value) >= 1e4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  return rest ? `${grouped}.${rest}` : grouped;
};
const tickText = (value) => {
  const text = digits(Number(value.toPrecision(10)));
  return text.includes(".") && !text.includes("×") ? text.replace(/\.?0+$/, "") : text;
};
const fit = (values, [from, to]) => {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (!(low <= high)) [low, high] = [0, 1];
  const log = low > 0 && high / low > 20;
  if (log) {
    const margin = (high / low) ** 0.05;
    [low, high] = [low / margin, high * margin];
  } else {
    const margin = high > low ? (high - low) * 0.08 : Math.max(Math.abs(high), 1e-12) * 0.1;
    [low, high] = [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
  }
  const share = (v) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
  const at = (v) => from + share(Math.min(high, Math.max(low, v))) * (to - from);
  return { log, low, high, at };
};
const ticks = ({ log, low, high }, most) => {
  if (!log) {
    const rough = (high - low) / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough) || rough;
    const out = [];
    for (let k = Math.ceil(low / step); k <= Math.floor(high / step) && out.length < 50; k += 1) out.push(k * step);
    return out;
  }
  const decades = Math.log10(high / low);
  const leading = decades <= 0.7 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : decades <= 1.5 ? [1, 2, 3, 5] : decades <= 3 ? [1, 3] : [1];
  const inside = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p += 1) {
    for (const d of leading) if (d * 10 ** p >= low && d * 10 ** p <= high) inside.push(d * 10 ** p);
  }
  const stride = Math.max(1, Math.ceil(inside.length / Math.max(1, most)));
  return inside.filter((_, i) => i % stride === 0);
};
