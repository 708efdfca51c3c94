// Arcs from written words (below) to the source words they attend to (above). The weight is the arc's width and depth
// of colour; a word that is pointed at, or reached by Tab, shows its weights as numbers.

const SVG = "http://www.w3.org/2000/svg";
const FONT = 20;
const GAP = 26;
const TOP = 52; // baseline of the source
const SPAN = 150; // from row to row
const SMALLEST = 0.02; // thinner arcs could not be seen

function make(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

function widths(tokens, family) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `600 ${FONT}px ${family}`;
  return tokens.map((token) => Math.max(14, context.measureText(token).width));
}

function spread(sizes, total) {
  const free = total - sizes.reduce((sum, size) => sum + size, 0) - GAP * (sizes.length - 1);
  let x = free / 2;
  return sizes.map((size) => {
    const middle = x + size / 2;
    x += size + GAP;
    return middle;
  });
}

const line = (sizes) => sizes.reduce((sum, size) => sum + size, 0) + GAP * (sizes.length - 1);

export function draw(root, data) {
  const family = getComputedStyle(root).fontFamily;
  const [above, below] = [widths(data.source, family), widths(data.target, family)];
  const width = Math.max(line(above), line(below)) + 40;
  const height = TOP + SPAN + 44;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, class: "arcs", role: "group", "aria-label": data.label });
  const [top, bottom] = [spread(above, width), spread(below, width)];
  const arcs = [];
  const lines = make("g", { "aria-hidden": "true" }, svg);
  data.weights.forEach((row, t) =>
    row.forEach((weight, s) => {
      if (weight < SMALLEST) return;
      const [from, to] = [TOP + SPAN - FONT, TOP + 8];
      const middle = (from + to) / 2;
      const path = make("path", {
        d: `M${bottom[t]} ${from}C${bottom[t]} ${middle} ${top[s]} ${middle} ${top[s]} ${to}`,
        "stroke-width": 1 + 6 * weight,
        class: "arc",
      }, lines);
      path.style.setProperty("--weight", 0.12 + 0.88 * weight);
      arcs.push({ t, s, path });
    }),
  );
  const sides = { s: [], t: [] };
  const numbers = { s: [], t: [] };
  const word = (side, index, x, y, token) => {
    const others = side === "s" ? data.target : data.source;
    const weights = side === "s" ? data.weights.map((row) => row[index]) : data.weights[index];
    const spoken = others.map((other, i) => `${other} ${weights[i].toFixed(2)}`).join(", ");
    const group = make("g", { class: `word ${side === "s" ? "key" : "query"}`, tabindex: "0", role: "img", "aria-label": `${token}: ${spoken}` }, svg);
    make("rect", { x: x - (side === "s" ? above : below)[index] / 2 - 8, y: y - FONT - 6, width: (side === "s" ? above : below)[index] + 16, height: FONT + 18, rx: 6 }, group);
    make("text", { x, y }, group).textContent = token;
    sides[side].push(group);
    numbers[side].push(make("text", { x, y: side === "s" ? y - FONT - 10 : y + FONT + 6, class: "number", "aria-hidden": "true" }, svg));
    const on = () => light(side, index);
    group.onpointerenter = group.onfocus = on;
    group.onpointerleave = group.onblur = () => light(null, 0);
  };
  data.source.forEach((token, s) => word("s", s, top[s], TOP, token));
  data.target.forEach((token, t) => word("t", t, bottom[t], TOP + SPAN, token));

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
  draw(parentElement.querySelector(".arcs-root"), data);
}
