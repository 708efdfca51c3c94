// Arcs from written words (below) to the source words they attend to (above). The weight is the arc's width and depth
// of colour; a word that is pointed at, or reached by Tab, shows its weights as numbers.

const SVG = "http://www.w3.org/2000/svg";
const LARGEST = 22;
const READABLE = 14; // a longer sentence scrolls sideways rather than shrink below this
const GAPS = [8, 48]; // narrowest and widest gap between two words
const MARGIN = 8;
const NUMBER = 30; // room for the numbers outside each row
const SPAN = 150; // from row to row
const SMALLEST = 0.02; // thinner arcs could not be seen

function make(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

const sum = (sizes) => sizes.reduce((total, size) => total + size, 0);

function widths(tokens, family, font) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `600 ${font}px ${family}`;
  return tokens.map((token) => Math.max(16, context.measureText(token).width));
}

// The largest letters with which both rows fit into `room`.
function fit(data, family, room) {
  for (let font = LARGEST; ; font -= 1) {
    const rows = [data.source, data.target].map((tokens) => widths(tokens, family, font));
    const needed = Math.max(...rows.map((sizes) => sum(sizes) + GAPS[0] * (sizes.length - 1))) + 2 * MARGIN;
    if (needed <= room || font === READABLE) return { font, rows, width: Math.max(needed, room) };
  }
}

function spread(sizes, width) {
  const free = width - 2 * MARGIN - sum(sizes);
  const gap = Math.min(GAPS[1], free / Math.max(1, sizes.length - 1));
  let x = (width - sum(sizes) - gap * (sizes.length - 1)) / 2;
  return sizes.map((size) => {
    const middle = x + size / 2;
    x += size + gap;
    return middle;
  });
}

function draw(root, data) {
  const { font, rows, width } = fit(data, getComputedStyle(root).fontFamily, root.clientWidth);
  const [above, below] = rows;
  const [top, bottom] = [NUMBER + font, NUMBER + font + SPAN]; // baselines
  const height = bottom + NUMBER + 4;
  const svg = make("svg", { width, height, class: "arcs", role: "group", "aria-label": data.label });
  svg.style.setProperty("--font", `${font}px`);
  const places = { s: spread(above, width), t: spread(below, width) };
  const arcs = [];
  const lines = make("g", { "aria-hidden": "true" }, svg);
  data.weights.forEach((row, t) =>
    row.forEach((weight, s) => {
      if (weight < SMALLEST) return;
      const [from, to] = [bottom - font - 4, top + 8];
      const middle = (from + to) / 2;
      const path = make("path", {
        d: `M${places.t[t]} ${from}C${places.t[t]} ${middle} ${places.s[s]} ${middle} ${places.s[s]} ${to}`,
        "stroke-width": 1 + 7 * weight,
        class: "arc",
      }, lines);
      path.style.setProperty("--weight", 0.12 + 0.88 * weight);
      arcs.push({ t, s, path });
    }),
  );
  const sides = { s: [], t: [] };
  const numbers = { s: [], t: [] };
  const word = (side, index, size, token) => {
    const [x, y] = [places[side][index], side === "s" ? top : bottom];
    const others = side === "s" ? data.target : data.source;
    const weights = side === "s" ? data.weights.map((row) => row[index]) : data.weights[index];
    const spoken = others.map((other, i) => `${other} ${weights[i].toFixed(2)}`).join(", ");
    const group = make("g", { class: `word ${side === "s" ? "key" : "query"}`, tabindex: "0", role: "img", "aria-label": `${token}: ${spoken}` }, svg);
    make("rect", { x: x - size / 2 - 4, y: y - font - 4, width: size + 8, height: font + 14, rx: 6 }, group);
    make("text", { x, y }, group).textContent = token;
    sides[side].push(group);
    numbers[side].push(make("text", { x, y: side === "s" ? y - font - 8 : y + 26, class: "number", "aria-hidden": "true" }, svg));
    group.onpointerenter = group.onfocus = () => light(side, index);
    group.onpointerleave = group.onblur = () => light(null, 0);
  };
  data.source.forEach((token, s) => word("s", s, above[s], token));
  data.target.forEach((token, t) => word("t", t, below[t], token));

  function light(side, index) {
    svg.classList.toggle("lit", side !== null);
    for (const arc of arcs) arc.path.classList.toggle("on", side !== null && arc[side] === index);
    for (const each of ["s", "t"]) {
      sides[each].forEach((group, i) => {
        const weight = side === "s" ? data.weights[i]?.[index] : data.weights[index]?.[i];
        const other = side !== null && each !== side && weight >= SMALLEST;
        group.classList.toggle("on", (each === side && i === index) || other);
        numbers[each][i].textContent = other ? weight.toFixed(2) : "";
      });
    }
  }

  root.replaceChildren(svg);
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".arcs-root");
  let drawn = null;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === drawn || root.clientWidth === 0) return;
    drawn = root.clientWidth;
    draw(root, data);
  });
  observer.observe(root);
  return () => observer.disconnect();
}
