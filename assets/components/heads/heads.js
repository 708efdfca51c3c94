// The picture of all heads: three linked panels, each a mosaic of every layer and head above one head drawn large.
//
// mount(root, data, words, callbacks) knows nothing of Streamlit; the default export at the end adapts it, and the
// downloaded page calls mountStandalone. Text from people goes in through textContent or canvas only.

const SEND_AFTER_MS = 200; // a held arrow key sends the head it stops at, not each head it passes
const FOCUS_FROM_TOKENS = 22; // above this three equal panels leave less than a label's height to a row

function formatChange(change) {
  const size = Math.abs(change).toFixed(Math.abs(change) >= 0.1 ? 2 : 3);
  return Number(size) === 0 ? size : (change < 0 ? "−" : "+") + size;
}

// ---------------------------------------------------------------- the picture

// What a reader has chosen outlives a remount (another page and back), by the caller's id.
const memories = new Map();

class Picture {
  constructor(root, callbacks) {
    this.root = root;
    this.callbacks = callbacks;
    this.panels = [];
    this.active = null;
    this.hover = null;
    this.pin = null;
    this.enlarged = undefined; // undefined: by the number of tokens; null: none; else a map's key
    this.tableOpen = false;
    this.sent = []; // selections on their way to the server and back
    this.lastGiven = null;
    this.timer = 0;
    this.frame = 0;
    this.cleanups = [];
    this.buildFrame();
    const observer = new ResizeObserver(() => this.refresh());
    observer.observe(root);
    this.cleanups.push(() => observer.disconnect());
    const media = matchMedia("(prefers-color-scheme: dark)");
    const onMedia = () => this.refresh();
    media.addEventListener("change", onMedia);
    this.cleanups.push(() => media.removeEventListener("change", onMedia));
  }

  destroy() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    for (const cleanup of this.cleanups) cleanup();
    this.root.replaceChildren();
  }

  // ---- structure

  buildFrame() {
    const root = this.root;
    root.replaceChildren();
    root.classList.add("hl");
    this.toolbar = element("div", "hl-toolbar", root);
    this.legend = element("div", "hl-legend", this.toolbar);
    this.buttons = element("div", "hl-buttons", this.toolbar);
    this.readout = element("div", "hl-readout", root);
    this.grid = element("div", "hl-grid", root);
    this.strip = element("section", "hl-strip", root);
    this.table = element("div", "hl-table", root, { hidden: "" });
    this.tooltip = element("div", "hl-tooltip", root, { role: "presentation", hidden: "" });
    this.live = element("div", "hl-live", root, { "aria-live": "polite", role: "status" });
    this.svgButton = this.button(() => this.download("svg"));
    this.pngButton = this.button(() => this.download("png"));
    this.tableButton = this.button(() => {
      this.tableOpen = !this.tableOpen;
      this.remember();
      this.drawTable();
    });
    const strip = element("div", "hl-strip-words", this.strip);
    this.stripTitle = element("div", "hl-strip-title", strip);
    this.stripNumber = element("div", "hl-strip-number", strip);
    this.stripDetail = element("div", "hl-strip-detail", strip);
    this.stripCanvas = element("canvas", "", this.strip, { role: "img" });
    this.stripCanvas.onpointermove = (event) => this.pointStrip(event);
    this.stripCanvas.onpointerleave = () => this.setHover(null);
  }

  button(action) {
    const made = element("button", "hl-button", this.buttons, { type: "button" });
    made.onclick = action;
    return made;
  }

  buildPanels() {
    this.grid.replaceChildren();
    this.panels = this.data.maps
      .filter((described) => described.layers > 0)
      .map((described) => {
        const before = this.before.get(described.key);
        const section = element("section", "hl-panel", this.grid, { "data-panel": described.key });
        const panel = {
          map: decodeMap(described, this.words),
          section,
          layer: Math.min(before?.layer ?? described.layers - 1, described.layers - 1),
          head: typeof before?.head === "number" ? Math.min(before.head, described.heads - 1) : (before?.head ?? 0),
          cursor: { query: 0, key: 0 },
        };
        const head = element("header", "hl-head", section);
        panel.title = element("h3", "", head);
        panel.place = element("span", "hl-place", head);
        panel.enlarge = element("button", "hl-button hl-enlarge", head, { type: "button" });
        panel.enlarge.onclick = () => {
          this.enlarged = this.focused() === described.key ? null : described.key;
          this.remember();
          this.refresh();
        };
        panel.badges = element("div", "hl-badges", section);
        panel.body = element("div", "hl-body", section, { tabindex: "0", role: "application" });
        panel.mosaicBox = element("div", "hl-mosaic", panel.body);
        panel.mosaic = element("canvas", "", panel.mosaicBox, { "aria-hidden": "true" });
        panel.largeBox = element("div", "hl-large", panel.body);
        panel.base = element("canvas", "hl-base", panel.largeBox, { "aria-hidden": "true" });
        panel.overlay = element("canvas", "hl-overlay", panel.largeBox, { "aria-hidden": "true" });
        this.listen(panel);
        return panel;
      });
  }

  listen(panel) {
    const key = panel.map.key;
    panel.body.onkeydown = (event) => this.onKey(event, panel);
    panel.body.onfocus = () => this.activate(panel);
    panel.overlay.onpointermove = (event) => {
      const place = this.locate(panel, event);
      this.setHover(place && { map: key, ...place }, event);
    };
    panel.overlay.onpointerleave = () => this.setHover(null);
    panel.overlay.onclick = (event) => {
      const place = this.locate(panel, event);
      this.activate(panel);
      panel.body.focus({ preventScroll: true });
      if (place) this.togglePin({ map: key, ...place });
    };
    panel.mosaic.onpointermove = (event) => {
      const tile = this.locateTile(panel, event);
      this.setTile(panel, tile);
      placeTooltip(this.root, this.tooltip, event, tile && [["hl-tip-place", this.placeText(panel.map, tile.layer, tile.head)]]);
    };
    panel.mosaic.onpointerleave = () => {
      this.setTile(panel, null);
      placeTooltip(this.root, this.tooltip, null, null);
    };
    panel.mosaic.onclick = (event) => {
      const tile = this.locateTile(panel, event);
      panel.body.focus({ preventScroll: true });
      if (tile) this.choose(panel, tile.layer, tile.head);
    };
  }

  // ---- data in

  update(data, words) {
    const sameNumbers = this.data?.hash === data.hash;
    const text = JSON.stringify([data.strings, data.scale, data.causal, data.height]);
    const sameWords = this.text === text;
    this.data = data;
    this.text = text;
    this.words = words;
    if (!sameNumbers) {
      this.before = new Map(this.panels.map((panel) => [panel.map.key, { layer: panel.layer, head: panel.head }]));
      const first = this.panels.length === 0;
      this.hover = null;
      this.pin = null;
      this.buildPanels();
      if (!this.panels.some((panel) => panel.map.key === this.active)) this.active = this.panels[0]?.map.key ?? null;
      const memory = first && memories.get(data.id);
      if (memory) {
        this.enlarged = memory.enlarged;
        this.tableOpen = memory.tableOpen;
        this.lastGiven = memory.lastGiven;
        if (memory.hash === data.hash) this.take(memory.selection);
      }
    }
    this.receive(data.selection, !sameNumbers);
    if (!sameNumbers) this.wide = this.active;
    if (!sameNumbers || !sameWords) {
      this.themeKey = null;
      this.writeWords();
    }
    this.refresh();
  }

  // The server repeats what it was told, late. Only a selection that did not come from here is followed.
  receive(selection, fresh) {
    const given = JSON.stringify(selection);
    const echo = this.sent.lastIndexOf(given);
    if (echo >= 0) this.sent.splice(0, echo + 1);
    else if (given !== this.lastGiven) {
      this.sent = [];
      this.take(selection);
    } else if (fresh && selection.pinned) this.takePin(selection.pinned);
    this.lastGiven = given;
  }

  take(selection) {
    for (const panel of this.panels) {
      const place = panel.map.key === selection.map ? [selection.layer, selection.head] : selection.heads[panel.map.key];
      if (!place) continue;
      const [layer, head] = place;
      if (layer < panel.map.layers && (typeof head === "string" || head < panel.map.heads)) [panel.layer, panel.head] = place;
    }
    if (this.panels.some((panel) => panel.map.key === selection.map)) this.active = selection.map;
    this.takePin(selection.pinned);
  }

  takePin(pin) {
    const panel = pin && this.panel(pin.map);
    const fits = panel && (pin.query ?? 0) < panel.map.queries && (pin.key ?? 0) < panel.map.keys;
    this.pin = fits ? { map: pin.map, query: pin.query, key: pin.key } : null;
  }

  selection() {
    const panel = this.panel(this.active);
    return {
      map: this.active,
      layer: panel.layer,
      head: panel.head,
      pinned: this.pin,
      heads: Object.fromEntries(this.panels.map((each) => [each.map.key, [each.layer, each.head]])),
    };
  }

  remember() {
    memories.set(this.data.id, {
      hash: this.data.hash,
      enlarged: this.enlarged,
      tableOpen: this.tableOpen,
      lastGiven: this.lastGiven,
      selection: this.selection(),
    });
  }

  send() {
    this.remember();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const selection = this.selection();
      const text = JSON.stringify(selection);
      if (this.sent.at(-1) === text || (this.sent.length === 0 && this.lastGiven === text)) return;
      this.sent.push(text);
      this.callbacks.select(selection);
    }, SEND_AFTER_MS);
  }

  panel(key) {
    return this.panels.find((panel) => panel.map.key === key);
  }

  // ---- words

  title(map) {
    return this.data.strings[`title_${map.key}`];
  }

  placeText(map, layer, head) {
    const name = typeof head === "number" ? "place_head" : `place_${head}`;
    return fill(this.data.strings[name], { layer: layer + 1, head: head + 1 });
  }

  writeWords() {
    const strings = this.data.strings;
    this.root.lang = strings.language;
    for (const [button, name] of [[this.svgButton, "svg"], [this.pngButton, "png"], [this.tableButton, "table"]]) {
      button.textContent = strings[name];
      button.title = strings[`${name}_label`];
      button.setAttribute("aria-label", strings[`${name}_label`]);
    }
    this.legend.replaceChildren();
    const bar = element("span", "hl-legend-item", this.legend);
    element("span", "", bar).textContent = strings.weight;
    element("span", "hl-number", bar).textContent = "0";
    this.bar = element("canvas", "", bar, { "aria-hidden": "true" });
    element("span", "hl-number", bar).textContent = this.data.scale === "unit" ? "1" : strings.head_maximum;
    const absent = element("span", "hl-legend-item", this.legend);
    this.swatch = element("canvas", "", absent, { "aria-hidden": "true" });
    element("span", "", absent).textContent = strings.masked;
    element("span", "hl-legend-item hl-query", this.legend).textContent = strings.rows;
    element("span", "hl-legend-item hl-key", this.legend).textContent = strings.columns;
    for (const panel of this.panels) panel.title.textContent = this.title(panel.map);
  }

  // What a place says: lines of [class, text], the number first.
  describe(place) {
    const strings = this.data.strings;
    const panel = this.panel(place.map);
    const { map, layer, head } = panel;
    const query = place.query == null ? null : visible(map.query_tokens[place.query]);
    const key = place.key == null ? null : visible(map.key_tokens[place.key]);
    const lines = [];
    if (query !== null && key !== null) {
      const cell = place.query * map.keys + place.key;
      const allowed = map.mask[cell];
      const weight = headWeights(map, layer, head)[cell] / FIXED_POINT;
      lines.push(["hl-tip-number", allowed ? formatWeight(weight) : strings.masked]);
      lines.push(["hl-tip-cell", [["hl-query", query], ["", " → "], ["hl-key", key]]]);
    } else {
      const [token, position, role] = query === null ? [key, place.key, "hl-key"] : [query, place.query, "hl-query"];
      lines.push(["hl-tip-cell", [[role, token]]]);
      lines.push(["hl-tip-place", fill(strings.position, { position: position + 1 })]);
    }
    if (query !== null && map.predicted_tokens) {
      const predicted = visible(map.predicted_tokens[place.query]);
      lines.push(["hl-tip-reads", fill(strings.reads_predicts, { read: query, predicted })]);
    }
    lines.push(["hl-tip-place", `${this.title(map)} · ${this.placeText(map, layer, head)}`]);
    return lines;
  }

  writeReadout() {
    const place = this.pin ?? this.hover;
    if (this.explained) this.readout.textContent = this.explained;
    else if (!place) this.readout.textContent = this.data.strings.hint;
    else {
      writeLines(this.readout, this.describe(place));
      if (this.pin) element("span", "hl-pinned", this.readout).textContent = this.data.strings.pinned;
    }
  }

  say(text) {
    this.live.textContent = text;
  }

  // ---- choosing

  activate(panel) {
    if (this.active === panel.map.key) return;
    this.active = panel.map.key;
    this.writeState();
    this.drawStrip();
    this.drawTable();
    this.send();
  }

  choose(panel, layer, head) {
    this.active = panel.map.key;
    panel.layer = layer;
    panel.head = head;
    this.explained = null;
    this.drawPanel(panel);
    this.writeState();
    this.drawOverlays();
    this.drawStrip();
    this.drawTable();
    this.say(`${this.title(panel.map)}, ${this.placeText(panel.map, layer, head)}`);
    this.send();
  }

  togglePin(place) {
    const same = this.pin && this.pin.map === place.map && this.pin.query === place.query && this.pin.key === place.key;
    this.setPin(same ? null : place);
  }

  setPin(place) {
    this.pin = place;
    this.drawOverlays();
    if (place) this.say(`${this.data.strings.pinned}: ${plainLines(this.describe(place))}`);
    else this.say(this.data.strings.unpinned);
    this.send();
  }

  onKey(event, panel) {
    const { map } = panel;
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (step && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey) {
        const { cursor } = panel;
        cursor.query = Math.min(map.queries - 1, Math.max(0, cursor.query + step[0]));
        cursor.key = Math.min(map.keys - 1, Math.max(0, cursor.key + step[1]));
        this.setHover({ map: map.key, ...cursor });
        this.say(plainLines(this.describe(this.hover)));
      } else {
        const layer = Math.min(map.layers - 1, Math.max(0, panel.layer + step[0]));
        const column = Math.min(map.heads + 1, Math.max(0, columnOf(map, panel.head) + step[1]));
        this.choose(panel, layer, headAt(map, column));
      }
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const place = this.hover?.map === map.key ? this.hover : { map: map.key, ...panel.cursor };
      this.togglePin({ map: place.map, query: place.query ?? null, key: place.key ?? null });
    } else if (event.key === "Escape") {
      this.hover = null;
      if (this.pin) this.setPin(null);
      else this.drawOverlays();
    }
  }

  // ---- pointing

  locate(panel, event) {
    const { figure, map } = panel;
    const box = panel.overlay.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const key = Math.floor((x - figure.left) / figure.cell);
    const query = Math.floor((y - figure.top) / figure.cell);
    const inRows = query >= 0 && query < map.queries;
    const inColumns = key >= 0 && key < map.keys;
    if (inRows && inColumns) return { query, key };
    if (inRows) return { query, key: null };
    if (inColumns && y < figure.top) return { query: null, key };
    return null;
  }

  setHover(place, event) {
    const changed = JSON.stringify(place) !== JSON.stringify(this.hover);
    this.hover = place;
    if (place && place.query !== null && place.key !== null) {
      Object.assign(this.panel(place.map).cursor, { query: place.query, key: place.key });
    }
    if (changed) {
      this.explained = null;
      this.drawOverlays();
    }
    // Without the line that the heading of the panel and the readout say too: it would cover more cells.
    placeTooltip(this.root, this.tooltip, event, place && event && this.describe(place).slice(0, -1));
  }

  // Rows and columns of `panel` that show a token of `place`: positions on the source or the target side.
  lit(panel, place) {
    const rows = new Set();
    const columns = new Set();
    if (place) {
      const { map } = this.panel(place.map);
      const tokens = [[map.query_side, place.query], [map.key_side, place.key]];
      for (const [side, position] of tokens) {
        if (position == null) continue;
        const own = map.key === panel.map.key;
        if (own ? position === place.query && side === map.query_side : side === panel.map.query_side) rows.add(position);
        if (own ? position === place.key && side === map.key_side : side === panel.map.key_side) columns.add(position);
      }
      if (map.key === panel.map.key) {
        rows.clear();
        columns.clear();
        if (place.query != null) rows.add(place.query);
        if (place.key != null) columns.add(place.key);
      }
    }
    return { rows: [...rows], columns: [...columns] };
  }

  // ---- drawing

  focused() {
    if (this.enlarged !== undefined) return this.panel(this.enlarged) ? this.enlarged : null;
    const most = Math.max(...this.panels.map(({ map }) => Math.max(map.queries, map.keys)));
    return most > FOCUS_FROM_TOKENS && this.panels.length > 1 ? this.wide : null;
  }

  refresh() {
    if (!this.data || !this.root.clientWidth) return;
    const theme = readTheme(this.root);
    const layoutKey = [theme.key, this.root.clientWidth, this.focused(), window.innerHeight].join("|");
    if (layoutKey !== this.themeKey) {
      this.theme = theme;
      this.themeKey = layoutKey;
      this.root.style.setProperty("--hl-query", theme.query);
      this.root.style.setProperty("--hl-key", theme.key_);
      this.layOut();
      for (const panel of this.panels) this.drawMosaicImage(panel);
      drawRamp(this.bar, this.theme);
      drawSwatch(this.swatch, this.theme);
    }
    for (const panel of this.panels) this.drawPanel(panel);
    this.writeState();
    this.drawOverlays();
    this.drawStrip();
    this.drawTable();
  }

  layOut() {
    const { unit } = this.theme;
    const width = this.root.clientWidth;
    const gap = 20 * unit;
    const hasStrip = this.data.causal !== null;
    const chrome = (58 + 34 + (hasStrip ? 110 : 0)) * unit;
    const height = Math.max(420 * unit, this.data.height - chrome);
    const focused = this.focused();
    const heads = 56 * unit;
    const count = this.panels.length;
    const size = (panel, w, h, beside) => {
      Object.assign(panel, { width: Math.floor(w), height: Math.floor(h), beside });
      panel.body.classList.toggle("hl-beside", beside);
    };
    this.grid.style.gap = `${12 * unit}px ${gap}px`;
    if (width < 860 * unit) {
      this.mode = "stacked";
      this.grid.style.gridTemplateColumns = "minmax(0, 1fr)";
      const beside = width >= 560 * unit;
      for (const panel of this.panels) size(panel, width, Math.min(width * (beside ? 0.62 : 1.4), 900 * unit), beside);
    } else if (focused && count > 1) {
      this.mode = "focused";
      const side = Math.floor((width - gap) * 0.36);
      const rest = (height - (count - 2) * 12 * unit) / (count - 1) - heads;
      this.grid.style.gridTemplateColumns = `${Math.floor(width - gap - side)}px ${side}px`;
      for (const panel of this.panels) {
        if (panel.map.key === focused) size(panel, width - gap - side, height - heads, true);
        else size(panel, side, rest, true);
      }
    } else {
      this.mode = "equal";
      const each = (width - gap * (count - 1)) / count;
      this.grid.style.gridTemplateColumns = `repeat(${count}, minmax(0, 1fr))`;
      for (const panel of this.panels) size(panel, each, height - heads, count === 1);
    }
    this.root.dataset.mode = this.mode;
    let row = 1;
    for (const panel of this.panels) {
      const isFocus = this.mode === "focused" && panel.map.key === focused;
      panel.section.style.gridColumn = this.mode === "focused" ? (isFocus ? "1" : "2") : "auto";
      panel.section.style.gridRow = this.mode === "focused" ? (isFocus ? `1 / span ${count - 1}` : String(row++)) : "auto";
      panel.enlarge.hidden = this.mode === "stacked" || count < 2;
      const name = isFocus ? "shrink" : "enlarge";
      panel.enlarge.textContent = isFocus ? "⤡" : "⤢";
      panel.enlarge.title = this.data.strings[name];
      panel.enlarge.setAttribute("aria-label", `${this.data.strings[name]}: ${this.title(panel.map)}`);
    }
    for (const panel of this.panels) this.layOutMosaic(panel);
    if (this.mode === "equal") {
      const tallest = Math.max(...this.panels.map((panel) => panel.tiles.height));
      for (const panel of this.panels) panel.tiles.boxHeight = tallest;
    }
  }

  layOutMosaic(panel) {
    const { map } = panel;
    const { unit, size, font } = this.theme;
    const strings = this.data.strings;
    const summaryWidth = (name) => Math.ceil(textWidth(strings[name], size, font)) + 6;
    const [meanWidth, maxWidth] = [summaryWidth("mean"), summaryWidth("max")];
    const labels = Math.ceil(textWidth(`L${map.layers}`, size, font)) + 6;
    const header = size + 6;
    // Beside a map that is bound by its height the mosaic may have what is left.
    const need = (panel.height * map.keys) / map.queries + 80 * unit;
    const room = panel.beside ? Math.min(0.6 * panel.width, Math.max(0.3 * panel.width, panel.width - need)) : panel.width;
    const tall = panel.beside ? panel.height : panel.height * 0.3;
    const apart = 8 * unit;
    const fit = (room - labels - apart - meanWidth - maxWidth) / map.heads;
    const high = (tall - header) / map.layers;
    const tile = Math.floor(Math.max(14 * unit, Math.min(fit, high, 56 * unit)));
    const columns = [];
    for (let h = 0; h < map.heads; h++) columns.push(labels + h * tile);
    const summaries = labels + map.heads * tile + apart;
    const [meanColumn, maxColumn] = [Math.max(tile, meanWidth), Math.max(tile, maxWidth)];
    columns.push(summaries + (meanColumn - tile) / 2, summaries + meanColumn + (maxColumn - tile) / 2);
    const pad = tile >= 18 ? 3 : 2;
    const inner = tile - pad;
    const long = Math.max(map.queries, map.keys);
    panel.tiles = {
      tile, pad, columns, labels, header, summaries, meanColumn,
      width: summaries + meanColumn + maxColumn + 2,
      height: header + map.layers * tile + 2,
      tileWidth: Math.max(2, (inner * map.keys) / long),
      tileHeight: Math.max(2, (inner * map.queries) / long),
    };
    panel.tiles.boxHeight = panel.tiles.height;
  }

  drawMosaicImage(panel) {
    const { map, tiles } = panel;
    const { theme } = this;
    const scale = devicePixelRatio;
    const image = document.createElement("canvas");
    const context = sizeCanvas(image, tiles.width, tiles.height, scale);
    const [w, h] = [Math.max(1, Math.round(tiles.tileWidth * scale)), Math.max(1, Math.round(tiles.tileHeight * scale))];
    const draw = thumbnails(map, w, h, theme);
    for (let layer = 0; layer < map.layers; layer++) {
      for (let column = 0; column < map.heads + 2; column++) {
        const weights = headWeights(map, layer, headAt(map, column));
        const thumbnail = draw(weights, this.data.scale === "unit" ? FIXED_POINT : largest(weights));
        const x = Math.round((tiles.columns[column] + (tiles.tile - tiles.tileWidth) / 2) * scale);
        const y = Math.round((tiles.header + layer * tiles.tile + (tiles.tile - tiles.tileHeight) / 2) * scale);
        context.putImageData(thumbnail, x, y);
        context.strokeStyle = theme.line;
        context.lineWidth = 1 / scale;
        context.strokeRect((x - 0.5) / scale, (y - 0.5) / scale, (w + 1) / scale, (h + 1) / scale);
      }
    }
    const { size } = theme;
    const write = (text, x, y, align) => paint(context, [{ kind: "text", x, y, text, size, align, fill: theme.quiet }], theme, scale);
    const every = Math.max(1, Math.ceil((textWidth(`H${map.heads}`, size, theme.font) + 2) / tiles.tile));
    for (let head = 0; head < map.heads; head += every) {
      write(`H${head + 1}`, tiles.columns[head] + tiles.tile / 2, tiles.header / 2, "center");
    }
    write(this.data.strings.mean, tiles.columns[map.heads] + tiles.tile / 2, tiles.header / 2, "center");
    write(this.data.strings.max, tiles.columns[map.heads + 1] + tiles.tile / 2, tiles.header / 2, "center");
    const everyLayer = Math.max(1, Math.ceil((size + 1) / tiles.tile));
    for (let layer = 0; layer < map.layers; layer += everyLayer) {
      write(`L${layer + 1}`, tiles.labels - 5, tiles.header + (layer + 0.5) * tiles.tile, "right");
    }
    panel.mosaicImage = image;
  }

  drawMosaic(panel) {
    const { tiles, map } = panel;
    const { theme } = this;
    const scale = devicePixelRatio;
    const context = sizeCanvas(panel.mosaic, tiles.width, tiles.height, scale);
    context.drawImage(panel.mosaicImage, 0, 0, tiles.width, tiles.height);
    const outline = (layer, head, thick, colour) => {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.strokeRect(
        tiles.columns[columnOf(map, head)] + thick / 2,
        tiles.header + layer * tiles.tile + thick / 2,
        tiles.tile - thick,
        tiles.tile - thick,
      );
    };
    if (panel.tile) outline(panel.tile.layer, panel.tile.head, 1.5, theme.quiet);
    outline(panel.layer, panel.head, 2.5, theme.ink);
  }

  locateTile(panel, event) {
    const { tiles, map } = panel;
    const box = panel.mosaic.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const layer = Math.floor((y - tiles.header) / tiles.tile);
    const column = tiles.columns.findIndex((start) => x >= start && x < start + tiles.tile);
    return layer >= 0 && layer < map.layers && column >= 0 ? { layer, head: headAt(map, column) } : null;
  }

  setTile(panel, tile) {
    if (JSON.stringify(tile) === JSON.stringify(panel.tile ?? null)) return;
    panel.tile = tile;
    this.drawMosaic(panel);
  }

  drawPanel(panel) {
    const { map, layer, head, tiles } = panel;
    const { theme } = this;
    const { unit } = theme;
    const room = panel.beside
      ? { width: panel.width - tiles.width - 16 * unit, height: panel.height }
      : { width: panel.width, height: panel.height - tiles.boxHeight - 10 * unit };
    const figure = largeFigure(map, layer, head, this.data.scale, theme, this.data.strings, { room, snap: devicePixelRatio });
    panel.figure = figure;
    panel.mosaicBox.style.height = panel.beside ? "auto" : `${tiles.boxHeight}px`;
    panel.mosaicBox.style.maxHeight = `${panel.height}px`;
    panel.largeBox.style.width = `${Math.ceil(figure.width)}px`;
    panel.largeBox.style.height = `${Math.ceil(figure.height)}px`;
    const context = sizeCanvas(panel.base, figure.width, figure.height, devicePixelRatio);
    paint(context, figure.shapes, theme, devicePixelRatio);
    panel.overlay.dataset.left = String(figure.left);
    panel.overlay.dataset.top = String(figure.top);
    panel.overlay.dataset.cell = String(figure.cell);
    this.drawMosaic(panel);
    const place = this.placeText(map, layer, head);
    // In short, as the mosaic labels it: beside the title there is little room.
    panel.place.textContent = `L${layer + 1} · ${typeof head === "number" ? `H${head + 1}` : this.data.strings[head]}`;
    panel.place.title = place;
    panel.body.setAttribute("aria-label", fill(this.data.strings.panel_label, { title: this.title(map), place }));
    this.drawBadges(panel);
  }

  drawBadges(panel) {
    const { map, layer, head } = panel;
    const strings = this.data.strings;
    const badges = [];
    const most = formatWeight(panel.figure.most / FIXED_POINT);
    const range = this.data.scale === "head" ? fill(strings.up_to, { max: most }) : "";
    const sink = typeof head === "number" ? map.sinks[layer][head] : null;
    if (sink) {
      const values = { token: visible(map.key_tokens[sink.key]), share: formatShare(sink.share), position: sink.key + 1 };
      badges.push([fill(strings.sink, values), fill(strings.sink_why, values), "sink"]);
    }
    if (map.token_keys > map.d_k) {
      const values = { keys: map.token_keys, d_k: map.d_k };
      badges.push([fill(strings.many_keys, values), fill(strings.many_keys_why, values), "keys"]);
    }
    const text = JSON.stringify([range, badges]);
    if (panel.badgeText === text) return;
    panel.badgeText = text;
    panel.badges.replaceChildren();
    if (range) element("span", "hl-range", panel.badges).textContent = range;
    for (const [label, why, name] of badges) {
      const badge = element("button", "hl-badge", panel.badges, { type: "button", title: why, "data-badge": name });
      badge.textContent = label;
      badge.setAttribute("aria-label", `${label}. ${why}`);
      badge.onclick = badge.onpointerenter = badge.onfocus = () => {
        this.explained = why;
        this.writeReadout();
      };
      badge.onpointerleave = badge.onblur = () => {
        this.explained = null;
        this.writeReadout();
      };
    }
  }

  drawOverlays() {
    const place = this.pin ?? this.hover;
    for (const panel of this.panels) {
      const { figure, map } = panel;
      if (!figure) continue;
      const { rows, columns } = this.lit(panel, place);
      const context = sizeCanvas(panel.overlay, figure.width, figure.height, devicePixelRatio);
      const { left, top, cell } = figure;
      drawLit(context, figure, map, rows, columns, this.theme);
      if (place?.map === map.key && place.query != null && place.key != null) {
        context.strokeStyle = this.theme.ink;
        context.lineWidth = this.pin ? 3 : 2;
        context.strokeRect(left + place.key * cell - 1, top + place.query * cell - 1, cell + 2, cell + 2);
      }
      panel.section.dataset.rows = rows.join(" ");
      panel.section.dataset.columns = columns.join(" ");
    }
    this.writeState();
    this.writeReadout();
    this.drawStripMark(place);
  }

  // What a test or a style can see of the state.
  writeState() {
    const panel = this.panel(this.active);
    if (!panel) return;
    const place = this.pin ?? this.hover;
    const name = (at) => (at ? [at.map, at.query ?? "", at.key ?? ""].join(":") : "");
    Object.assign(this.root.dataset, {
      map: this.active,
      layer: String(panel.layer),
      head: String(panel.head),
      lit: name(place),
      pinned: name(this.pin),
      hash: this.data.hash,
    });
    for (const each of this.panels) {
      each.section.classList.toggle("hl-active", each === panel);
      each.section.dataset.layer = String(each.layer);
      each.section.dataset.head = String(each.head);
    }
  }

  // ---- the causal strip

  causalState() {
    const { causal } = this.data;
    const panel = this.panel(this.active);
    if (typeof panel.head !== "number") return "summary";
    const mine = causal.map === panel.map.key && causal.layer === panel.layer && causal.head === panel.head;
    return mine && causal.tokens?.length ? "ready" : "computing";
  }

  drawStrip() {
    const { causal, strings } = this.data;
    this.strip.hidden = causal === null;
    if (causal === null || !this.panel(this.active)) return;
    const { theme } = this;
    const { unit, size } = theme;
    const state = this.causalState();
    this.strip.dataset.state = state;
    this.stripTitle.textContent = strings[causal.mode === "uniform" ? "causal_uniform" : "causal_zero"];
    const panel = this.panel(this.active);
    const place = `${this.title(panel.map)} · ${this.placeText(panel.map, panel.layer, panel.head)}`;
    if (state !== "ready") {
      this.stripNumber.textContent = "";
      this.stripDetail.textContent = state === "summary" ? strings.causal_summary : strings.causal_computing;
      this.stripGeometry = null;
    } else {
      const mean = causal.delta.reduce((sum, change) => sum + change, 0) / causal.delta.length;
      const worst = causal.delta.reduce((best, change, i) => (Math.abs(change) > Math.abs(causal.delta[best]) ? i : best), 0);
      this.stripNumber.textContent = fill(strings.causal_mean, { mean: formatChange(mean) });
      this.stripDetail.textContent = fill(strings.causal_largest, {
        token: visible(causal.tokens[worst]),
        before: formatWeight(causal.before[worst]),
        after: formatWeight(causal.after[worst]),
      });
    }
    const words = this.mode === "stacked" ? 0 : 270 * unit;
    const width = this.root.clientWidth - words - 8;
    const labels = size * 1.5;
    const height = 92 * unit;
    const context = sizeCanvas(this.stripCanvas, width, height, devicePixelRatio);
    if (state !== "ready") return;
    const axis = size * 3.8;
    const count = causal.tokens.length;
    const step = Math.min((width - axis) / count, 72 * unit);
    const plot = height - labels - 6;
    const middle = 3 + plot / 2;
    const most = [0.05, 0.1, 0.2, 0.5, 1].find((limit) => causal.delta.every((change) => Math.abs(change) <= limit)) ?? 1;
    const shapes = [
      { kind: "text", x: axis - 6, y: 3 + size / 2, text: `+${most}`, size, align: "right", fill: theme.quiet },
      { kind: "text", x: axis - 6, y: middle, text: "0", size, align: "right", fill: theme.quiet },
      { kind: "text", x: axis - 6, y: 3 + plot - size / 2, text: `−${most}`, size, align: "right", fill: theme.quiet },
      { kind: "rect", x: axis, y: middle - 0.5, width: step * count, height: 1, fill: theme.quiet },
    ];
    const lengths = causal.tokens.map((token) => (/^<\w+>$/.test(token) ? 0 : textWidth(visible(token), size, theme.font)));
    const widest = Math.max(size, ...lengths);
    // Where numbers have no room beside one another, the three largest still have.
    const largest = causal.delta.map(Math.abs).sort((a, b) => b - a)[Math.min(2, count - 1)];
    const every = Math.max(1, Math.ceil(Math.min(widest + 4, 64 * unit) / step));
    causal.delta.forEach((change, i) => {
      const x = axis + i * step;
      const tall = Math.max(1, (Math.abs(change) / most) * (plot / 2));
      shapes.push({ kind: "rect", x: x + step * 0.15, y: change < 0 ? middle : middle - tall, width: step * 0.7, height: tall, fill: theme.ink });
      const number = formatChange(change);
      const fits = textWidth(number, size, theme.font) + 6 <= step;
      if (fits || (step >= 2 * size && Math.abs(change) >= largest)) {
        const y = change < 0 ? middle - size * 0.6 : middle + size * 0.7;
        shapes.push({ kind: "text", x: x + step / 2, y, text: number, size, align: "center", fill: theme.quiet });
      }
      if (i % every === 0) {
        const text = shorten(visible(causal.tokens[i]), Math.max(step * every + 4, size), size, theme.font);
        shapes.push({ kind: "text", x: x + step / 2, y: height - labels / 2, text, size, align: "center", fill: theme.ink });
      }
    });
    paint(context, shapes, theme, devicePixelRatio);
    this.stripGeometry = { axis, step, count, plot, height };
    const summary = `${place}. ${this.stripTitle.textContent}. ${this.stripNumber.textContent}. ${this.stripDetail.textContent}`;
    this.stripCanvas.setAttribute("aria-label", summary);
    this.stripImage = context.getImageData(0, 0, this.stripCanvas.width, this.stripCanvas.height);
    this.drawStripMark(this.pin ?? this.hover);
  }

  targetPosition(place) {
    if (!place) return null;
    const { map } = this.panel(place.map);
    return map.predicted_tokens ? place.query : null;
  }

  drawStripMark(place) {
    if (this.data.causal === null || !this.stripGeometry || this.strip.dataset.state !== "ready") return;
    const { axis, step, count, height } = this.stripGeometry;
    const context = this.stripCanvas.getContext("2d");
    context.putImageData(this.stripImage, 0, 0);
    const position = this.targetPosition(place);
    if (position == null || position >= count || this.data.view !== "tokens") return;
    context.strokeStyle = QUERY;
    context.lineWidth = 1.5;
    context.strokeRect(axis + position * step, 1, step, height - 2);
  }

  pointStrip(event) {
    const geometry = this.stripGeometry;
    if (!geometry) return;
    const box = this.stripCanvas.getBoundingClientRect();
    const i = Math.floor((event.clientX - box.left - geometry.axis) / geometry.step);
    const { causal, strings } = this.data;
    if (i < 0 || i >= geometry.count) {
      this.setHover(null);
      return;
    }
    const panel = this.panels.find(({ map }) => map.predicted_tokens && i < map.queries);
    if (panel && this.data.view === "tokens") this.setHover({ map: panel.map.key, query: i, key: null });
    placeTooltip(this.root, this.tooltip, event, [
      ["hl-tip-number", formatChange(causal.delta[i])],
      ["hl-tip-cell", visible(causal.tokens[i])],
      ["hl-tip-place", fill(strings.causal_change, { before: formatWeight(causal.before[i]), after: formatWeight(causal.after[i]) })],
    ]);
  }

  // ---- table and downloads

  drawTable() {
    this.tableButton.setAttribute("aria-pressed", String(this.tableOpen));
    this.table.hidden = !this.tableOpen;
    const panel = this.panel(this.active);
    const wanted = this.tableOpen && panel ? [this.data.hash, this.active, panel.layer, panel.head, this.text].join("|") : "";
    if (wanted === this.tableText) return;
    this.tableText = wanted;
    this.table.replaceChildren();
    if (!wanted) return;
    const { map, layer, head } = panel;
    const strings = this.data.strings;
    this.table.tabIndex = 0;
    const table = element("table", "", this.table);
    const caption = `${this.title(map)}, ${this.placeText(map, layer, head)}. ${strings.rows}; ${strings.columns}.`;
    element("caption", "", table).textContent = caption;
    const top = element("tr", "", element("thead", "", table));
    element("th", "", top, { scope: "col" }).textContent = strings.query_column;
    if (map.predicted_tokens) element("th", "", top, { scope: "col" }).textContent = strings.predicts;
    for (const token of map.key_tokens) element("th", "hl-key", top, { scope: "col" }).textContent = visible(token);
    const body = element("tbody", "", table);
    const weights = headWeights(map, layer, head);
    for (let q = 0; q < map.queries; q++) {
      const row = element("tr", "", body);
      element("th", "hl-query", row, { scope: "row" }).textContent = visible(map.query_tokens[q]);
      if (map.predicted_tokens) element("td", "", row).textContent = visible(map.predicted_tokens[q]);
      for (let k = 0; k < map.keys; k++) {
        const cell = q * map.keys + k;
        element("td", "", row).textContent = map.mask[cell] ? (weights[cell] / FIXED_POINT).toFixed(3) : strings.masked_short;
      }
    }
  }

  exportFigure(panel) {
    const { map, layer, head } = panel;
    const { theme } = this;
    const strings = this.data.strings;
    const { size } = theme;
    const cell = Math.max(size * 1.5, Math.min(48, 640 / Math.max(map.queries, map.keys)));
    const large = largeFigure(map, layer, head, this.data.scale, theme, strings, { room: {}, cell });
    const title = `${this.title(map)} · ${this.placeText(map, layer, head)}`;
    const most = this.data.scale === "unit" ? "1" : formatWeight(large.most / FIXED_POINT);
    const shapes = [{ kind: "text", x: 16, y: 22, text: title, size: size * 1.35, weight: 600, fill: theme.ink }];
    const lines = [[strings.rows, theme.query], [strings.columns, theme.key_]];
    let width = Math.max(large.width, textWidth(title, size * 1.35, theme.font, 600));
    lines.forEach(([text, colour], i) => {
      shapes.push({ kind: "text", x: 16, y: 44 + i * size * 1.4, text, size, fill: colour });
      width = Math.max(width, textWidth(text, size, theme.font));
    });
    const from = 44 + lines.length * size * 1.4 + 6;
    for (const shape of [...large.shapes, ...large.labels()]) shapes.push({ ...shape, x: shape.x + 16, y: shape.y + from });
    const foot = from + large.height + 16;
    let x = 16;
    const say = (text, fillColour = theme.ink) => {
      shapes.push({ kind: "text", x, y: foot + size / 2, text, size, fill: fillColour });
      x += textWidth(text, size, theme.font) + 6;
    };
    say(strings.weight);
    say("0");
    for (let i = 0; i < 64; i++) shapes.push({ kind: "rect", x: x + i * 1.75, y: foot, width: 1.8, height: size, fill: theme.ramp[Math.round((i * 255) / 63)] });
    shapes.push({ kind: "frame", x, y: foot, width: 112, height: size, stroke: theme.line, thick: 1 });
    x += 118;
    say(this.data.scale === "unit" ? most : `${most} (${strings.head_maximum})`);
    if (map.mask.includes(0)) {
      x += 14;
      shapes.push({ kind: "hatch", x, y: foot, width: size * 1.5, height: size });
      shapes.push({ kind: "frame", x, y: foot, width: size * 1.5, height: size, stroke: theme.line, thick: 1 });
      x += size * 1.5 + 6;
      say(strings.masked);
    }
    width = Math.max(width, x - 16);
    return { title, shapes, width: width + 32, height: foot + size + 16 };
  }

  async download(kind) {
    const panel = this.panel(this.active);
    if (!panel) return;
    const figure = this.exportFigure(panel);
    const head = typeof panel.head === "number" ? `H${panel.head + 1}` : panel.head;
    const name = `attention-${panel.map.key}-L${panel.layer + 1}-${head}.${kind}`;
    let blob;
    if (kind === "svg") blob = new Blob([toSvg(figure, this.theme)], { type: "image/svg+xml" });
    else {
      const canvas = document.createElement("canvas");
      const context = sizeCanvas(canvas, figure.width, figure.height, 2);
      context.fillStyle = this.theme.paper;
      context.fillRect(0, 0, figure.width, figure.height);
      paint(context, figure.shapes, this.theme, 2);
      blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}

// `data`: the payload less its weights, with `id` and `height`; `words`: Uint16Array of all weights;
// `callbacks.select(selection)` is told, after a pause, what is selected and pinned.
export function mount(root, data, words, callbacks) {
  const picture = new Picture(root, callbacks);
  picture.update(data, words);
  return picture;
}

export function mountStandalone(root, text) {
  const data = JSON.parse(text);
  const words = wordsOf(decodeBase64(data.weights));
  const height = Math.max(560, window.innerHeight - root.getBoundingClientRect().top - 24);
  return mount(root, { ...data, id: "page", height }, words, { select() {} });
}

// ---------------------------------------------------------------- Streamlit

export default inStreamlit(".hl", (root, data, words, send) =>
  mount(root, data, words, { select: (selection) => send("selection", selection) }),
);
