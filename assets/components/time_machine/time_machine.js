// The time machine: attention over one probe sentence at the recorded steps of a training. Every step is here; moving
// through them asks no server. One step is drawn large and as thumbnails of all heads, beside the loss.
//
// open(root, data, words, send) knows nothing of Streamlit. Text from people goes in through textContent or canvas only.

const FRAME_MS = 450; // how long a step stays while it plays
const REPORT_AFTER_MS = 350; // a held key reports where it stops, not what it passes
const EDGE = 3; // room at both ends of the strip for the frame around the shown step
const WIDE_FROM = 800; // below it everything stands in one column

// ---------------------------------------------------------------- numbers

function formatStep(step) {
  return String(step).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function formatBits(bits) {
  return bits.toFixed(2);
}

function formatLoss(loss) {
  if (loss !== 0 && (loss < 0.001 || loss >= 1e5)) return loss.toExponential(1);
  return loss >= 100 ? loss.toFixed(0) : Number(loss.toPrecision(3)).toString();
}

// Steps stand on a logarithmic axis that has room for step 0.
function along(step) {
  return Math.log1p(step);
}

function nearestIndex(steps, step) {
  let best = 0;
  steps.forEach((each, i) => {
    if (Math.abs(along(each) - along(step)) < Math.abs(along(steps[best]) - along(step))) best = i;
  });
  return best;
}

function niceTick(top) {
  const unit = 10 ** Math.floor(Math.log10(top));
  return [5, 2, 1, 0.5].map((factor) => factor * unit).find((tick) => tick <= 0.75 * top) ?? top;
}

// ---------------------------------------------------------------- the picture

class TimeMachine {
  constructor(root, send) {
    this.root = root;
    this.send = send;
    this.index = 0;
    this.layer = 0;
    this.head = 0;
    this.playing = 0; // the timer, while it plays
    this.timer = 0;
    this.hover = null;
    this.pin = null;
    this.cursor = { query: 0, key: 0 };
    this.ghost = null; // the step that a click on the curve would go to
    this.tableOpen = false;
    this.sent = [];
    this.lastGiven = null;
    this.lastReport = null;
    this.cleanups = [];
    this.build();
    const observer = new ResizeObserver(() => this.refresh());
    observer.observe(root);
    this.cleanups.push(() => observer.disconnect());
    const media = matchMedia("(prefers-color-scheme: dark)");
    const onMedia = () => this.refresh();
    media.addEventListener("change", onMedia);
    this.cleanups.push(() => media.removeEventListener("change", onMedia));
    // In a lecture nobody clicks into a picture before pressing a key: while nothing has the focus, keys come here.
    const onKey = (event) => {
      if (event.target === document.body) this.onKey(event);
    };
    document.addEventListener("keydown", onKey);
    this.cleanups.push(() => document.removeEventListener("keydown", onKey));
  }

  destroy() {
    clearInterval(this.playing);
    clearTimeout(this.timer);
    for (const cleanup of this.cleanups) cleanup();
    this.root.replaceChildren();
  }

  // ---- structure

  build() {
    const { root } = this;
    root.replaceChildren();
    root.setAttribute("role", "group");
    root.onkeydown = (event) => this.onKey(event);

    const toolbar = element("div", "hl-toolbar", root);
    this.legend = element("div", "hl-legend", toolbar);
    this.tableButton = element("button", "hl-button", toolbar, { type: "button" });
    this.tableButton.onclick = () => {
      this.tableOpen = !this.tableOpen;
      this.drawTable();
    };

    const transport = element("div", "tm-transport", root);
    const controls = element("div", "tm-controls", transport);
    this.playButton = element("button", "tm-play", controls, { type: "button" });
    element("span", "tm-icon", this.playButton, { "aria-hidden": "true" });
    this.playWord = element("span", "", this.playButton);
    this.playButton.onclick = () => this.toggle();
    this.stepText = element("div", "tm-step", controls);
    this.track = element("div", "tm-track", transport);
    this.slider = element("input", "tm-slider", this.track, { type: "range", min: "0", step: "1" });
    this.slider.oninput = () => {
      this.stop(false);
      this.go(Number(this.slider.value), false);
    };
    // The pointer was let go, or a key: the address may follow now.
    this.slider.onchange = () => this.report();
    this.strip = element("canvas", "tm-strip", this.track, { "aria-hidden": "true" });
    this.strip.onpointerdown = (event) => {
      this.strip.setPointerCapture(event.pointerId);
      this.stop(false);
      this.scrub(event);
    };
    this.strip.onpointermove = (event) => {
      if (this.strip.hasPointerCapture(event.pointerId)) this.scrub(event);
    };
    this.strip.onpointerup = () => {
      this.slider.focus({ preventScroll: true });
      this.report(0);
    };

    this.stage = element("div", "tm-stage", root);
    const shown = element("section", "tm-shown", this.stage);
    const head = element("header", "hl-head", shown);
    this.title = element("h3", "", head);
    this.place = element("span", "hl-place", head);
    this.large = element("div", "hl-large", shown, { tabindex: "0" });
    this.base = element("canvas", "tm-base", this.large, { "aria-hidden": "true" });
    this.overlay = element("canvas", "hl-overlay", this.large, { "aria-hidden": "true" });
    this.readout = element("div", "hl-readout", shown);
    this.overlay.onpointermove = (event) => this.setHover(this.locate(event), event);
    this.overlay.onpointerleave = () => this.setHover(null);
    this.overlay.onclick = (event) => {
      const place = this.locate(event);
      this.large.focus({ preventScroll: true });
      if (place) this.setPin(JSON.stringify(place) === JSON.stringify(this.pin) ? null : place);
    };

    const beside = element("section", "tm-beside", this.stage);
    const numbers = element("div", "tm-numbers", beside);
    const number = () => {
      const block = element("div", "tm-number", numbers);
      return { block, large: element("div", "tm-large", block), small: element("div", "tm-small", block) };
    };
    [this.entropy, this.share] = [number(), number()];
    this.curve = element("canvas", "tm-curve", beside, { role: "img" });
    this.curveNote = element("div", "tm-small", beside);
    this.curve.onpointermove = (event) => this.pointCurve(event);
    this.curve.onpointerleave = () => this.pointCurve(null);
    this.curve.onclick = (event) => {
      const index = this.locateStep(event);
      if (index === null) return;
      this.stop(false);
      this.go(index);
      this.report(0);
    };
    this.headsTitle = element("div", "tm-heading", beside);
    this.heads = element("canvas", "tm-heads", beside, { tabindex: "0", role: "group" });
    this.heads.onclick = (event) => {
      const tile = this.locateTile(event);
      if (tile) this.choose(tile.layer, tile.head);
    };
    this.heads.onpointermove = (event) => {
      const tile = this.locateTile(event);
      this.heads.style.cursor = tile ? "pointer" : "default";
      const lines = tile && [["hl-tip-place", this.placeText(tile.layer, tile.head)]];
      const bits = tile && this.data.entropy[this.index][tile.layer][tile.head];
      if (lines && bits !== null) lines.push(["", fill(this.data.strings.bits, { bits: formatBits(bits) })]);
      placeTooltip(root, this.tooltip, event, lines);
    };
    this.heads.onpointerleave = () => placeTooltip(root, this.tooltip, null, null);

    this.table = element("div", "hl-table", root, { hidden: "", tabindex: "0" });
    this.tooltip = element("div", "hl-tooltip", root, { role: "presentation", hidden: "" });
    this.live = element("div", "hl-live", root, { "aria-live": "polite", role: "status" });
  }

  // ---- data in

  update(data, words) {
    const before = this.data;
    const [sameSource, sameMap] = [before?.source === data.source, before?.source === data.source && before?.map === data.map];
    const sameFilm = before?.hash === data.hash;
    const sameText = before && JSON.stringify(before.strings) === JSON.stringify(data.strings) && sameMap;
    const [shown, wasLast] = [before?.steps[this.index], before && this.index === before.steps.length - 1];
    this.data = data;
    this.words = words;
    if (!sameFilm) {
      this.map = { ...decodeMap({ ...data, offset: 0 }, words), weights: null };
      this.films = data.steps.map((_, step) => {
        const size = data.layers * data.heads * this.map.cells;
        return { ...this.map, weights: words.subarray(step * size, (step + 1) * size), summaries: new Map() };
      });
      if (!sameMap || before.probe !== data.probe) {
        this.pin = null;
        this.hover = null;
        this.cursor = { query: 0, key: 0 };
      }
    }
    const given = data.moment;
    const echo = this.sent.lastIndexOf(JSON.stringify(given));
    const asked = echo < 0 && JSON.stringify(given) !== this.lastGiven;
    if (echo >= 0) this.sent.splice(0, echo + 1);
    this.lastGiven = JSON.stringify(given);
    if (!sameSource) this.stop(false);
    if (!sameMap || asked) [this.layer, this.head] = [given.layer, given.head];
    if (!sameSource || (asked && sameMap)) this.index = nearestIndex(data.steps, given.step);
    // A training that still runs gained steps: whoever stood at its end goes with it.
    else if (!sameFilm) this.index = wasLast && !this.playing ? data.steps.length - 1 : nearestIndex(data.steps, shown);
    if (!sameText) this.writeWords();
    this.layoutKey = null;
    this.refresh();
    // What the server has said itself it need not be told.
    const moment = this.moment();
    if (["layer", "head", "step"].every((name) => moment[name] === given[name])) this.lastReport = JSON.stringify(moment);
    else this.report();
  }

  moment() {
    const { source, map, steps } = this.data;
    return { source, map, layer: this.layer, head: this.head, step: steps[this.index] };
  }

  // While it plays the address stays where it was.
  report(after = REPORT_AFTER_MS) {
    clearTimeout(this.timer);
    if (this.playing) return;
    const tell = () => {
      const moment = this.moment();
      const text = JSON.stringify(moment);
      if (text === this.lastReport) return;
      this.lastReport = text;
      this.sent.push(JSON.stringify({ layer: moment.layer, head: moment.head, step: moment.step }));
      this.send("moment", moment);
    };
    if (after) this.timer = setTimeout(tell, after);
    else tell();
  }

  // ---- words

  placeText(layer, head) {
    return fill(this.data.strings.place_head, { layer: layer + 1, head: head + 1 });
  }

  stepWords(index = this.index) {
    return fill(this.data.strings.step, { step: formatStep(this.data.steps[index]) });
  }

  writeWords() {
    const { strings } = this.data;
    const { root } = this;
    root.lang = strings.language;
    root.setAttribute("aria-label", strings.label);
    this.tableButton.textContent = strings.table;
    this.tableButton.setAttribute("aria-label", strings.table_label);
    this.slider.setAttribute("aria-label", strings.slider);
    this.legend.replaceChildren();
    const bar = element("span", "hl-legend-item", this.legend);
    element("span", "", bar).textContent = strings.weight;
    element("span", "", bar).textContent = "0";
    this.bar = element("canvas", "", bar, { "aria-hidden": "true" });
    element("span", "", bar).textContent = `1 ${strings.every_step}`;
    if (this.map.mask.includes(0)) {
      const absent = element("span", "hl-legend-item", this.legend);
      this.swatch = element("canvas", "", absent, { "aria-hidden": "true" });
      element("span", "", absent).textContent = strings.masked;
    } else this.swatch = null;
    element("span", "hl-legend-item hl-query", this.legend).textContent = strings.rows;
    element("span", "hl-legend-item hl-key", this.legend).textContent = strings.columns;
    this.title.textContent = strings[`title_${this.data.map}`];
    this.headsTitle.textContent = strings.heads;
  }

  describe(place) {
    const { strings } = this.data;
    const { map } = this;
    const lines = [];
    const query = place.query === null ? null : visible(map.query_tokens[place.query]);
    const key = place.key === null ? null : visible(map.key_tokens[place.key]);
    if (query !== null && key !== null) {
      const cell = place.query * map.keys + place.key;
      const weight = headWeights(this.films[this.index], this.layer, this.head)[cell] / FIXED_POINT;
      const number = !map.mask[cell] ? strings.masked : this.isWhole() ? formatWeight(weight) : strings.not_a_number;
      lines.push(["hl-tip-number", number]);
      lines.push(["hl-tip-cell", [["hl-query", query], ["", " → "], ["hl-key", key]]]);
    } else {
      lines.push(["hl-tip-cell", [query === null ? ["hl-key", key] : ["hl-query", query]]]);
    }
    if (query !== null && map.predicted_tokens) {
      const predicted = visible(map.predicted_tokens[place.query]);
      lines.push(["hl-tip-reads", fill(strings.reads_predicts, { read: query, predicted })]);
    }
    return lines;
  }

  say(text) {
    this.live.textContent = text;
  }

  // ---- moving through the steps

  toggle() {
    if (this.playing) this.stop();
    else this.play();
  }

  play() {
    const last = this.data.steps.length - 1;
    if (last < 1) return;
    if (this.index === last) this.go(0, false);
    this.playing = setInterval(() => {
      if (!this.root.isConnected) return this.stop(false);
      this.go(this.index + 1, false);
      if (this.index >= this.data.steps.length - 1) this.stop();
    }, FRAME_MS);
    clearTimeout(this.timer);
    this.writeState();
  }

  stop(report = true) {
    if (!this.playing) return;
    clearInterval(this.playing);
    this.playing = 0;
    this.writeState();
    if (report) {
      this.say(this.spoken());
      this.report(0);
    }
  }

  go(index, report = true) {
    const inside = Math.min(this.data.steps.length - 1, Math.max(0, index));
    if (inside !== this.index) {
      this.index = inside;
      this.drawStep();
    }
    if (report) this.report();
  }

  scrub(event) {
    const box = this.strip.getBoundingClientRect();
    const share = (event.clientX - box.left - EDGE) / (box.width - 2 * EDGE);
    this.go(Math.floor(share * this.data.steps.length), false);
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const { target, key } = event;
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
    const { layers, heads, queries, keys, steps } = this.data;
    const inside = (value, count) => Math.min(count - 1, Math.max(0, value));
    if (key === " ") {
      // A button that has the focus is what the person means.
      if (target instanceof HTMLButtonElement) return;
      this.toggle();
    } else if (event.shiftKey) {
      if (!step || target !== this.large) return;
      this.cursor = { query: inside(this.cursor.query + step[0], queries), key: inside(this.cursor.key + step[1], keys) };
      this.setHover(this.cursor);
      this.say(plainLines(this.describe(this.cursor)));
    } else if (step && target === this.heads) {
      this.choose(inside(this.layer + step[0], layers), inside(this.head + step[1], heads));
    } else if (step && step[1] && target !== this.slider) {
      this.stop(false);
      this.go(this.index + step[1]);
    } else if ((key === "Home" || key === "End") && target !== this.slider && target !== document.body) {
      this.stop(false);
      this.go(key === "Home" ? 0 : steps.length - 1);
    } else if (key === "Enter" && target === this.large) {
      this.setPin(this.pin ? null : (this.hover ?? this.cursor));
    } else if (key === "Escape") {
      this.pin = null;
      this.setHover(null);
      this.drawOverlay();
    } else return;
    event.preventDefault();
  }

  choose(layer, head) {
    this.layer = layer;
    this.head = head;
    this.drawStep();
    this.say(`${this.placeText(layer, head)}. ${this.spoken()}`);
    this.report();
  }

  // ---- pointing

  locate(event) {
    const { figure, map } = this;
    const box = this.overlay.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const [key, query] = [Math.floor((x - figure.left) / figure.cell), Math.floor((y - figure.top) / figure.cell)];
    const [inRows, inColumns] = [query >= 0 && query < map.queries, key >= 0 && key < map.keys];
    if (inRows && inColumns) return { query, key };
    if (inRows) return { query, key: null };
    return inColumns && y < figure.top ? { query: null, key } : null;
  }

  setHover(place, event) {
    const changed = JSON.stringify(place) !== JSON.stringify(this.hover);
    this.hover = place;
    if (place && place.query !== null && place.key !== null) this.cursor = place;
    if (changed) this.drawOverlay();
    placeTooltip(this.root, this.tooltip, event, place && event && this.describe(place));
  }

  setPin(place) {
    this.pin = place;
    this.drawOverlay();
    const { pinned, unpinned } = this.data.strings;
    this.say(place ? `${pinned}: ${plainLines(this.describe(place))}` : unpinned);
  }

  locateTile(event) {
    const { tile, left, top } = this.tiles;
    const box = this.heads.getBoundingClientRect();
    const head = Math.floor((event.clientX - box.left - left) / tile);
    const layer = Math.floor((event.clientY - box.top - top) / tile);
    const inside = layer >= 0 && layer < this.data.layers && head >= 0 && head < this.data.heads;
    return inside ? { layer, head } : null;
  }

  locateStep(event) {
    const { left, right, last } = this.axis;
    const x = event.clientX - this.curve.getBoundingClientRect().left;
    if (x < left - 12 || x > right + 12) return null;
    const step = Math.expm1(((x - left) / (right - left)) * along(last));
    return nearestIndex(this.data.steps, Math.max(0, step));
  }

  pointCurve(event) {
    const index = event && this.locateStep(event);
    if (index !== this.ghost) {
      this.ghost = index;
      this.drawCurve();
    }
    this.curve.style.cursor = index === null ? "default" : "pointer";
    placeTooltip(this.root, this.tooltip, event, index === null ? null : this.curveLines(index));
  }

  curveLines(index) {
    const { strings, curves, steps } = this.data;
    const lines = [["hl-tip-number", this.stepWords(index)]];
    for (const name of ["train", "dev"]) {
      const curve = curves?.[name];
      if (!curve?.steps.length) continue;
      const at = nearestIndex(curve.steps, steps[index]);
      const values = { loss: formatLoss(curve.values[at]), step: formatStep(curve.steps[at]) };
      lines.push(["", fill(strings[`${name}_at`], values)]);
    }
    return lines;
  }

  // ---- drawing

  isWhole(index = this.index) {
    return this.data.whole[index][this.layer][this.head];
  }

  spoken() {
    return [this.stepWords(), this.entropyWords().join(" "), this.shareWords()?.join(" ")].filter(Boolean).join(". ");
  }

  refresh() {
    if (!this.data || !this.root.clientWidth) return;
    const theme = readTheme(this.root);
    const key = [theme.key, this.root.clientWidth].join("|");
    if (key !== this.layoutKey) {
      this.layoutKey = key;
      this.theme = theme;
      this.root.style.setProperty("--hl-query", theme.query);
      this.root.style.setProperty("--hl-key", theme.key_);
      drawRamp(this.bar, theme);
      if (this.swatch) drawSwatch(this.swatch, theme);
      this.layOut();
    }
    this.drawStep();
  }

  layOut() {
    const { unit } = this.theme;
    const width = this.root.clientWidth;
    this.wide = width >= WIDE_FROM * unit;
    this.root.dataset.mode = this.wide ? "wide" : "stacked";
    this.strips = null;
    const gap = 28 * unit;
    this.sideWidth = this.wide ? Math.floor((width - gap) * 0.47) : width;
    this.room = this.wide
      ? { width: width - gap - this.sideWidth, height: Math.max(300 * unit, this.data.height - 225 * unit) }
      : { width, height: Math.min(1.1 * width, 560 * unit) };
    this.stage.style.gridTemplateColumns = this.wide ? `minmax(0, 1fr) ${this.sideWidth}px` : "minmax(0, 1fr)";
    this.layOutHeads();
  }

  layOutHeads() {
    const { size, font, unit } = this.theme;
    const { layers, heads } = this.data;
    const left = Math.ceil(textWidth(`L${layers}`, size, font)) + 8;
    const top = size + 6;
    const most = this.wide ? Math.max(18, (150 * unit) / layers) : 64 * unit;
    const tile = Math.floor(Math.max(16 * unit, Math.min((this.sideWidth - left) / heads, most, 64 * unit)));
    this.tiles = { left, top, tile, width: left + heads * tile + 2, height: top + layers * tile + 2 };
  }

  // Everything that a step changes, at once: nothing moves, only colours and numbers do.
  drawStep() {
    this.drawLarge();
    this.drawOverlay();
    this.drawNumbers();
    this.drawHeads();
    this.drawStrip();
    this.drawCurve();
    this.drawTable();
    this.writeState();
  }

  drawLarge() {
    const { theme, room } = this;
    const { strings } = this.data;
    const film = this.films[this.index];
    const figure = largeFigure(film, this.layer, this.head, "unit", theme, strings, { room, snap: devicePixelRatio });
    this.figure = figure;
    this.large.style.width = `${Math.ceil(figure.width)}px`;
    this.large.style.height = `${Math.ceil(figure.height)}px`;
    const context = sizeCanvas(this.base, figure.width, figure.height, devicePixelRatio);
    paint(context, figure.shapes, theme, devicePixelRatio);
    if (!this.isWhole()) {
      const [width, height] = [film.keys * figure.cell, film.queries * figure.cell];
      const middle = { x: figure.left + width / 2, y: figure.top + height / 2 };
      paint(context, [
        { kind: "rect", x: figure.left, y: figure.top, width, height, fill: theme.paper },
        { kind: "hatch", x: figure.left, y: figure.top, width, height },
        { kind: "text", ...middle, text: strings.not_a_number, size: theme.size * 1.2, weight: 600, align: "center", fill: theme.ink },
      ], theme, devicePixelRatio);
    }
    Object.assign(this.overlay.dataset, { left: figure.left, top: figure.top, cell: figure.cell });
    this.place.textContent = `L${this.layer + 1} · H${this.head + 1}`;
    this.place.title = this.placeText(this.layer, this.head);
    const label = fill(strings.large_label, {
      title: this.title.textContent,
      place: this.placeText(this.layer, this.head),
      step: this.stepWords(),
    });
    this.large.setAttribute("role", "img");
    this.large.setAttribute("aria-label", label);
  }

  drawOverlay() {
    const { figure, map, theme } = this;
    if (!figure) return;
    const place = this.pin ?? this.hover;
    const context = sizeCanvas(this.overlay, figure.width, figure.height, devicePixelRatio);
    const listed = (position) => (position === null || position === undefined ? [] : [position]);
    drawLit(context, figure, map, listed(place?.query), listed(place?.key), theme);
    if (place && place.query !== null && place.key !== null) {
      context.strokeStyle = theme.ink;
      context.lineWidth = this.pin ? 3 : 2;
      const { left, top, cell } = figure;
      context.strokeRect(left + place.key * cell - 1, top + place.query * cell - 1, cell + 2, cell + 2);
    }
    if (place) {
      writeLines(this.readout, this.describe(place));
      if (this.pin) element("span", "hl-pinned", this.readout).textContent = this.data.strings.pinned;
    } else this.readout.textContent = this.data.strings.hint;
  }

  entropyWords() {
    const { strings, entropy, even_entropy } = this.data;
    const bits = entropy[this.index][this.layer][this.head];
    if (even_entropy === null) return ["–", strings.no_choice];
    const large = bits === null ? "–" : fill(strings.bits, { bits: formatBits(bits) });
    return [large, fill(strings.entropy, { even: formatBits(even_entropy) })];
  }

  shareWords() {
    const { strings, share, even_share } = this.data;
    if (share === null) return null;
    const now = share[this.index][this.layer][this.head];
    return [now === null ? "–" : formatShare(now), fill(strings.share, { even: formatShare(even_share) })];
  }

  drawNumbers() {
    const write = (number, words) => {
      number.block.hidden = words === null;
      if (words) [number.large.textContent, number.small.textContent] = words;
    };
    write(this.entropy, this.entropyWords());
    write(this.share, this.shareWords());
  }

  thumbnail(context, draw, index, layer, head, box) {
    const { theme } = this;
    const scale = devicePixelRatio;
    const [x, y] = [Math.round(box.x * scale), Math.round(box.y * scale)];
    if (this.data.whole[index][layer][head]) {
      context.putImageData(draw(headWeights(this.films[index], layer, head), FIXED_POINT), x, y);
    } else paint(context, [{ kind: "hatch", ...box }], theme, scale);
    context.strokeStyle = theme.line;
    context.lineWidth = 1 / scale;
    context.strokeRect((x - 0.5) / scale, (y - 0.5) / scale, box.width + 1 / scale, box.height + 1 / scale);
  }

  // Width and height of a thumbnail that fits into a square.
  thumbnailSize(side) {
    const { queries, keys } = this.data;
    const long = Math.max(queries, keys);
    const scale = devicePixelRatio;
    const whole = (length) => Math.max(1, Math.round(length * scale)) / scale;
    return { width: whole((side * keys) / long), height: whole((side * queries) / long) };
  }

  drawHeads() {
    const { tiles, theme } = this;
    const { strings, layers, heads } = this.data;
    const scale = devicePixelRatio;
    const context = sizeCanvas(this.heads, tiles.width, tiles.height, scale);
    const size = this.thumbnailSize(tiles.tile - 6);
    const draw = thumbnails(this.map, Math.round(size.width * scale), Math.round(size.height * scale), theme);
    const write = (text, x, y, align) => paint(context, [{ kind: "text", x, y, text, size: theme.size, align, fill: theme.quiet }], theme, scale);
    const every = Math.max(1, Math.ceil((textWidth(`H${heads}`, theme.size, theme.font) + 2) / tiles.tile));
    for (let head = 0; head < heads; head += every) write(`H${head + 1}`, tiles.left + (head + 0.5) * tiles.tile, tiles.top / 2, "center");
    for (let layer = 0; layer < layers; layer++) {
      write(`L${layer + 1}`, tiles.left - 6, tiles.top + (layer + 0.5) * tiles.tile, "right");
      for (let head = 0; head < heads; head++) {
        const x = tiles.left + head * tiles.tile + (tiles.tile - size.width) / 2;
        const y = tiles.top + layer * tiles.tile + (tiles.tile - size.height) / 2;
        this.thumbnail(context, draw, this.index, layer, head, { x, y, ...size });
      }
    }
    context.strokeStyle = theme.ink;
    context.lineWidth = 2.5;
    context.strokeRect(tiles.left + this.head * tiles.tile + 1.25, tiles.top + this.layer * tiles.tile + 1.25, tiles.tile - 2.5, tiles.tile - 2.5);
    Object.assign(this.heads.dataset, { left: tiles.left, top: tiles.top, tile: tiles.tile });
    this.heads.setAttribute("aria-label", fill(strings.heads_label, { place: this.placeText(this.layer, this.head) }));
  }

  // The shown head at every step, below the slider: a thumbnail under each place of its thumb, where there is room.
  drawStrip() {
    const { theme, data } = this;
    const { unit, size } = theme;
    const scale = devicePixelRatio;
    const count = data.steps.length;
    const width = this.track.clientWidth;
    const apart = (width - 2 * EDGE) / count;
    const place = (i) => EDGE + (i + 0.5) * apart;
    const every = Math.max(1, Math.ceil((26 * unit) / apart));
    const side = Math.floor(Math.min(46 * unit, apart * every - 4));
    const box = this.thumbnailSize(side);
    const height = box.height + size + 12;
    const key = [this.layoutKey, data.hash, this.layer, this.head, width].join("|");
    const draw = thumbnails(this.map, Math.round(box.width * scale), Math.round(box.height * scale), theme);
    const small = (target, i) => this.thumbnail(target, draw, i, this.layer, this.head, { x: place(i) - box.width / 2, y: 3, ...box });
    if (this.strips?.key !== key) {
      const image = document.createElement("canvas");
      const context = sizeCanvas(image, width, height, scale);
      let free = -Infinity;
      data.steps.forEach((step, i) => {
        const x = place(i);
        const last = i === count - 1;
        if (i % every === 0) small(context, i);
        const text = formatStep(step);
        const half = textWidth(text, size, theme.font) / 2 + 3;
        const lastHalf = textWidth(formatStep(data.steps[count - 1]), size, theme.font) / 2 + 3;
        if (x - half < free || (!last && x + half > place(count - 1) - lastHalf)) return;
        free = x + half;
        paint(context, [{ kind: "text", x: Math.min(x, width - half), y: height - size / 2 - 2, text, size, align: "center", fill: theme.quiet }], theme, scale);
      });
      this.strips = { key, image };
      // The places of the slider's thumb, over the thumbnails.
      const thumb = 16;
      this.slider.style.width = `${place(count - 1) - place(0) + thumb}px`;
      this.slider.style.marginLeft = `${place(0) - thumb / 2}px`;
    }
    const context = sizeCanvas(this.strip, width, height, scale);
    context.drawImage(this.strips.image, 0, 0, this.strips.image.width / scale, this.strips.image.height / scale);
    // Where they stand too close for each to have one, the shown step still has.
    if (this.index % every) small(context, this.index);
    context.strokeStyle = theme.ink;
    context.lineWidth = 2.5;
    const frame = box.width + 4;
    context.strokeRect(place(this.index) - frame / 2, 1.25, frame, box.height + 3.5);
  }

  drawCurve() {
    const { theme, data } = this;
    const { unit, size, font } = theme;
    const { strings, curves, steps } = data;
    const scale = devicePixelRatio;
    const width = this.sideWidth;
    const [lossHeight, bitsHeight, between] = [104 * unit, 62 * unit, size * 2.5];
    const top = size * 1.9;
    const bitsTop = top + lossHeight + between;
    const bottom = bitsTop + bitsHeight;
    const height = bottom + size * 3.1;
    const bitsMost = data.even_entropy ?? 1;
    const lossTick = niceTick(curves?.top ?? 1);
    const left = 10 + Math.max(textWidth(formatLoss(lossTick), size, font), textWidth(formatBits(bitsMost), size, font));
    const names = [strings.train, strings.dev, strings.even];
    const right = width - Math.max(...names.map((name) => textWidth(name, size, font))) - 12;
    const last = Math.max(steps.at(-1), curves?.last ?? 0, 1);
    const x = (step) => left + (along(step) / along(last)) * (right - left);
    this.axis = { left, right, last };
    const context = sizeCanvas(this.curve, width, height, scale);
    const text = (words, tx, ty, more = {}) => paint(context, [{ kind: "text", x: tx, y: ty, text: words, size, fill: theme.quiet, ...more }], theme, scale);
    const line = (x0, y0, x1, y1, colour, thick, dash = []) => {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.setLineDash(dash);
      context.beginPath();
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
      context.stroke();
      context.setLineDash([]);
    };
    const path = (points, colour, thick) => {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.lineJoin = "round";
      context.beginPath();
      let open = false;
      for (const point of points) {
        if (point === null) open = false;
        else if (open) context.lineTo(...point);
        else {
          context.moveTo(...point);
          open = true;
        }
      }
      context.stroke();
    };
    const dots = (points, colour, radius) => {
      context.fillStyle = colour;
      for (const point of points) {
        if (point === null) continue;
        context.beginPath();
        context.arc(...point, radius, 0, 2 * Math.PI);
        context.fill();
      }
    };

    // The loss.
    text(strings.loss, 0, size * 0.7, { fill: theme.ink });
    const lossY = (loss) => top + (1 - loss / (curves?.top ?? 1)) * lossHeight;
    line(left, top + lossHeight, right, top + lossHeight, theme.line, 1);
    text("0", left - 5, top + lossHeight, { align: "right" });
    if (curves) {
      line(left, lossY(lossTick), right, lossY(lossTick), theme.line, 0.5);
      text(formatLoss(lossTick), left - 5, lossY(lossTick), { align: "right" });
      context.save();
      context.beginPath();
      context.rect(left - 3, top - 3, right - left + 6, lossHeight + 6);
      context.clip();
      for (const [name, thick, radius] of [["train", 1.25, 0], ["dev", 2, 2.5]]) {
        const curve = curves[name];
        const points = curve.steps.map((step, i) => [x(step), lossY(curve.values[i])]);
        path(points, curve.colour, thick);
        if (radius && points.length < 60) dots(points, curve.colour, radius);
      }
      context.restore();
      this.drawLineEnds(context, ["train", "dev"].filter((name) => curves[name].steps.length), lossY, x, text, top, lossHeight);
    } else text(strings.no_loss, (left + right) / 2, top + lossHeight / 2, { align: "center" });

    // The entropy of the shown head, at the recorded steps.
    text(strings.entropy_axis, 0, bitsTop - size * 1.0, { fill: theme.ink });
    const bitsY = (bits) => bitsTop + (1 - bits / (1.08 * bitsMost)) * bitsHeight;
    line(left, bottom, right, bottom, theme.line, 1);
    text("0", left - 5, bottom, { align: "right" });
    const hue = theme.dark ? "#CC79A7" : "#A9497F";
    if (data.even_entropy !== null) {
      line(left, bitsY(bitsMost), right, bitsY(bitsMost), theme.quiet, 1, [4, 3]);
      text(formatBits(bitsMost), left - 5, bitsY(bitsMost), { align: "right" });
      text(strings.even, right + 6, bitsY(bitsMost));
      const points = steps.map((step, i) => {
        const bits = data.entropy[i][this.layer][this.head];
        return bits === null ? null : [x(step), bitsY(bits)];
      });
      path(points, hue, 1.5);
      dots(points, hue, 2);
      const here = points[this.index];
      if (here) dots([here], hue, 4.5);
    }

    // The axis that both share.
    let free = -Infinity;
    for (const step of [0, ...Array.from({ length: 9 }, (_, i) => 10 ** i)]) {
      if (step > last) break;
      line(x(step), bottom, x(step), bottom + 4, theme.quiet, 1);
      const half = textWidth(formatStep(step), size, font) / 2;
      if (x(step) - half < free) continue;
      free = x(step) + half + 6;
      text(formatStep(step), x(step), bottom + 6 + size / 2, { align: "center" });
    }
    text(strings.step_axis, right, bottom + size * 2.4, { align: "right" });

    // Where one is, and where a click would go.
    if (this.ghost !== null && this.ghost !== this.index && this.ghost < steps.length) {
      line(x(steps[this.ghost]), top - 4, x(steps[this.ghost]), bottom, theme.quiet, 1, [2, 2]);
    }
    const now = x(steps[this.index]);
    line(now, top - 4, now, bottom, theme.ink, 1.75);
    const label = this.stepWords();
    const half = textWidth(label, size, font, 600) / 2;
    const labelX = Math.min(Math.max(now, textWidth(strings.loss, size, font) + 10 + half), width - half);
    text(label, labelX, size * 0.7, { align: "center", weight: 600, fill: theme.ink });
    Object.assign(this.curve.dataset, { left, right, last, marker: now });
    this.curve.setAttribute("aria-label", fill(strings.curve_label, { now: this.curveLines(this.index).map(([, words]) => words).join(", ") }));
    const notes = [];
    for (const name of ["train", "dev"]) {
      const broken = curves?.[name].broken;
      if (broken !== null && broken !== undefined) notes.push(fill(strings[`${name}_broken`], { step: formatStep(broken) }));
    }
    if (curves?.over) notes.push(fill(strings.over, { loss: formatLoss(curves.over) }));
    this.curveNote.textContent = notes.join(" ");
    this.curveNote.hidden = notes.length === 0;
  }

  // A curve's name stands at its end; two that end together keep a line's height apart.
  drawLineEnds(context, names, y, x, text, top, height) {
    const { curves, strings } = this.data;
    const { size } = this.theme;
    const ends = names.map((name) => {
      const { steps, values, colour } = curves[name];
      return { name, colour, x: x(steps.at(-1)), y: Math.max(top, y(values.at(-1))) };
    });
    ends.sort((a, b) => a.y - b.y);
    if (ends.length === 2 && ends[1].y - ends[0].y < size * 1.15) {
      const middle = Math.min((ends[0].y + ends[1].y) / 2, top + height - size * 0.5);
      [ends[0].y, ends[1].y] = [middle - size * 0.6, middle + size * 0.6];
    }
    for (const end of ends) text(strings[end.name], Math.max(end.x, this.axis.left) + 6, end.y, { fill: end.colour, weight: 600 });
  }

  writeState() {
    const { strings, steps, map, hash } = this.data;
    const name = this.playing ? "pause" : "play";
    this.playButton.dataset.does = name;
    this.playWord.textContent = strings[name];
    this.playButton.title = strings.keys;
    this.playButton.disabled = this.slider.disabled = steps.length < 2;
    this.stepText.textContent = steps.length < 2 ? strings.only_one : this.stepWords();
    this.slider.max = String(Math.max(1, steps.length - 1));
    this.slider.value = String(this.index);
    this.slider.setAttribute("aria-valuetext", this.spoken());
    Object.assign(this.root.dataset, {
      map, hash, layer: this.layer, head: this.head, step: steps[this.index], index: this.index,
      count: steps.length, playing: String(Boolean(this.playing)),
    });
  }

  drawTable() {
    this.tableButton.setAttribute("aria-pressed", String(this.tableOpen));
    this.table.hidden = !this.tableOpen;
    if (!this.tableOpen) {
      this.table.replaceChildren();
      return;
    }
    const { map, layer, head } = this;
    const { strings } = this.data;
    const weights = headWeights(this.films[this.index], layer, head);
    const scroll = [this.table.scrollLeft, this.table.scrollTop];
    this.table.replaceChildren();
    const table = element("table", "", this.table);
    const caption = `${this.title.textContent}, ${this.placeText(layer, head)}, ${this.stepWords()}. ${strings.rows}; ${strings.columns}.`;
    element("caption", "", table).textContent = caption;
    const top = element("tr", "", element("thead", "", table));
    element("th", "", top, { scope: "col" }).textContent = strings.query_column;
    if (map.predicted_tokens) element("th", "", top, { scope: "col" }).textContent = strings.predicts;
    for (const token of map.key_tokens) element("th", "hl-key", top, { scope: "col" }).textContent = visible(token);
    const body = element("tbody", "", table);
    for (let q = 0; q < map.queries; q++) {
      const row = element("tr", "", body);
      element("th", "hl-query", row, { scope: "row" }).textContent = visible(map.query_tokens[q]);
      if (map.predicted_tokens) element("td", "tm-predicts", row).textContent = visible(map.predicted_tokens[q]);
      for (let k = 0; k < map.keys; k++) {
        const cell = q * map.keys + k;
        const number = this.isWhole() ? (weights[cell] / FIXED_POINT).toFixed(3) : "–";
        element("td", "", row).textContent = map.mask[cell] ? number : strings.masked;
      }
    }
    [this.table.scrollLeft, this.table.scrollTop] = scroll;
  }
}

// `data`: the payload less its weights, with `moment`, `strings` and `height`; `send("moment", ...)` is told where the
// reader has stopped.
function open(root, data, words, send) {
  const machine = new TimeMachine(root, send);
  machine.update(data, words);
  return machine;
}

export default inStreamlit(".tm", open);
