// The explorer: choose a code in the bars, on the map or in a window's tokens, and see and hear what it stands for.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const [bars, map, panel] = [byId("bars"), byId("map"), byId("windows")];
  const [pieces, streams] = [data.pieces, data.streams];
  const unpacked = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const bytes = pieces ? unpacked(pieces.bytes) : null;
  let book = null; // the codebook that is shown
  let order = []; // its codes as indices, the most used first
  let rank = []; // where each index stands in `order`
  let chosen = 0; // an index; the code's own number is number(chosen)

  const number = (index) => (book.codes ? book.codes[index] : index);
  const count = (index) => (book.counts ? book.counts[index] : null);

  function draw(parent, name, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return parent.appendChild(element);
  }

  function show(index) {
    book = data.books[index];
    const size = book.codes ? book.codes.length : book.size;
    order = Array.from({ length: size }, (_, i) => i);
    if (book.counts) order.sort((a, b) => book.counts[b] - book.counts[a] || a - b);
    rank = [];
    order.forEach((code, place) => (rank[code] = place));
    byId("code").max = book.size - 1;
    bars.setAttribute("aria-valuemax", size - 1);
    drawBars(size);
    drawMap(size);
    choose(order[0]);
  }

  function drawBars(size) {
    bars.replaceChildren();
    bars.parentElement.hidden = !book.counts;
    const top = book.counts ? Math.max(book.counts[order[0]], 1e-12) : 1;
    const width = 400 / size;
    let path = "";
    let alive = 0;
    order.forEach((code, place) => {
      const share = book.counts ? book.counts[code] / top : 1;
      if (share > 0) alive = place + 1;
      path += `M${(place * width).toFixed(2)} 200V${(200 - 185 * share).toFixed(1)}h${(width * 0.9).toFixed(2)}V200z`;
    });
    draw(bars, "path", { class: "all", d: path });
    if (book.counts) {
      const even = 200 - (185 * book.total) / book.size / top;
      draw(bars, "path", { class: "even", d: `M0 ${even.toFixed(1)}H400` });
      if (alive < size) draw(bars, "path", { class: "dead", d: `M${(alive * width).toFixed(2)} 198H400` });
    }
    draw(bars, "rect", { class: "chosen", id: "bar-chosen", height: 200, width: Math.max(width, 2) });
  }

  function drawMap(size) {
    map.replaceChildren();
    byId("map-figure").hidden = !book.x;
    if (!book.x) return;
    const top = book.counts ? Math.log1p(Math.max(book.counts[order[0]], 1e-12)) : 1;
    const radius = Math.max(2, Math.min(6, 90 / Math.sqrt(size)));
    for (const code of [...order].reverse()) {
      const used = book.counts ? Math.log1p(book.counts[code]) / top : 1;
      const dot = { cx: at(book.x[code]), cy: 400 - at(book.y[code]), r: radius, "data-code": number(code) };
      if (used > 0) dot["fill-opacity"] = (0.2 + 0.8 * used).toFixed(2);
      else dot.class = "dead";
      draw(map, "circle", dot);
    }
    draw(map, "circle", { class: "chosen", id: "dot-chosen", r: radius + 4 });
    draw(map, "text", { id: "dot-label" });
    showMapNote(null);
  }

  const at = (step) => 8 + (384 * step) / 1000;

  function showMapNote(index) {
    const use = book.counts ? "darker is more used, rings are dead, " : "";
    const plain = `${data.layout}; ${use}codes far away are drawn at the edge`;
    byId("map-note").textContent = index === null ? plain : `code ${number(index)}: ${share(index)}`;
    const label = byId("dot-label");
    label.textContent = index === null ? "" : `code ${number(index)}`;
    if (index === null) return;
    const [x, y, left] = [at(book.x[index]), 400 - at(book.y[index]), book.x[index] > 800];
    label.setAttribute("x", left ? x - 12 : x + 12);
    label.setAttribute("y", Math.max(16, y + 5)); // whole, at the upper edge too
    label.setAttribute("text-anchor", left ? "end" : "start");
  }

  function share(index) {
    if (!book.counts) return "not counted";
    if (!count(index)) return "never chosen";
    const percent = ((100 * count(index)) / book.total).toPrecision(3);
    const times = data.counted ? `chosen ${count(index).toLocaleString("en")} times, ` : "";
    return `${times}${percent} % of tokens`;
  }

  function choose(index) {
    chosen = index;
    const size = order.length;
    byId("code").value = number(index);
    bars.setAttribute("aria-valuenow", rank[index]);
    bars.setAttribute("aria-valuetext", `code ${number(index)}, ${share(index)}`);
    byId("bar-chosen").setAttribute("x", (rank[index] * 400) / size);
    const ring = byId("dot-chosen");
    if (ring) {
      ring.setAttribute("cx", at(book.x[index]));
      ring.setAttribute("cy", 400 - at(book.y[index]));
    }
    byId("panel-h").textContent = `Code ${number(index)} of ${book.name}`;
    const place = book.counts ? `; number ${rank[index] + 1} of ${book.size} by use` : "";
    byId("panel-note").textContent = share(index) + place + ".";
    drawWindows(book.examples ? book.examples[index] : []);
    drawRaster();
  }

  function drawWindows(examples) {
    panel.replaceChildren();
    if (!pieces) return;
    if (!examples.length) {
      const note = document.createElement("p");
      note.textContent = count(chosen) ? "None of the pieces kept in this page holds it." : "No window holds it.";
      panel.append(note);
      return;
    }
    examples.forEach(([piece, token], i) => {
      const figure = document.createElement("figure");
      figure.className = "window";
      figure.append(pieces.shape.length === 4 ? image(piece) : line(piece, token));
      const caption = document.createElement("figcaption");
      const span = document.createElement("span");
      const low = Math.min(...lanes(piece, pieces.low));
      const high = Math.max(...lanes(piece, pieces.high));
      span.textContent = `${pieces.split}, token ${token + 1} of ${pieces.tokens}; ${low} to ${high} ${pieces.unit}`;
      caption.append(span);
      figure.append(caption);
      panel.append(figure);
    });
  }

  const lanes = (piece, values) => values.slice(piece * pieces.shape[1], (piece + 1) * pieces.shape[1]);

  function line(piece, token) {
    const [, channels] = pieces.shape;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 320 110");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `a piece of the signal; the code is that of token ${token + 1}`);
    const wide = 320 / pieces.tokens;
    if (pieces.tokens > 1) draw(svg, "rect", { class: "token", x: token * wide, width: wide, y: 0, height: 110 });
    drawLines(svg, bytes, pieces.shape, piece, 320, 110);
    return svg;
  }

  function drawLines(svg, levels, [, channels, points], which, wide, high) {
    const tall = high / channels;
    for (let channel = 0; channel < channels; channel++) {
      const from = (which * channels + channel) * points;
      let path = "";
      for (let i = 0; i < points; i++) {
        const y = tall * (channel + 0.06 + (0.88 * (255 - levels[from + i])) / 255);
        path += `${i ? "L" : "M"}${((wide * (i + 0.5)) / points).toFixed(1)} ${y.toFixed(1)}`;
      }
      draw(svg, "path", { d: path });
    }
  }

  // Windows over time: a row of coloured tokens for each codebook under the signal.

  const tokens = streams ? new Int32Array(unpacked(streams.codes).buffer) : null;
  const codeAt = (token, q) => tokens[(stream * streams.shape[1] + token) * streams.shape[2] + q];
  let stream = 0; // the window that is shown

  function drawStream(index) {
    stream = index;
    byId("signal").replaceChildren();
    const signals = streams.signals;
    drawLines(byId("signal"), unpacked(signals.bytes), signals.shape, index, 1000, 120);
    drawRaster();
  }

  function drawRaster() {
    if (!streams) return;
    const [, many, books] = streams.shape;
    const canvas = byId("raster");
    [canvas.width, canvas.height] = [many, books];
    canvas.style.height = `${Math.min(1.2 * books, 14)}rem`;
    const context = canvas.getContext("2d");
    let places = 0;
    for (let q = 0; q < books; q++) {
      for (let token = 0; token < many; token++) {
        const code = codeAt(token, q);
        if (code < 0) continue;
        const own = data.books[q] === book && code === number(chosen);
        places += own;
        context.fillStyle = own ? getComputedStyle(canvas).color : colour(data.books[q], code);
        context.fillRect(token, q, 1, 1);
      }
    }
    byId("play-code").disabled = !places;
    showStreamNote(null);
  }

  function colour(of, code) { // near codes have near colours, where the map is known
    const index = of.codes ? of.codes.indexOf(code) : code;
    const place = of.x && index >= 0 ? of.x[index] / 1000 : code / of.size;
    const light = of.y && index >= 0 ? 40 + (25 * of.y[index]) / 1000 : 52;
    return `hsl(${(300 * place).toFixed(0)} 60% ${light.toFixed(0)}%)`;
  }

  function showStreamNote(token) {
    const [, many, books] = streams.shape;
    let text = `${streams.split}; similar codes have similar colours, the chosen one stands out; click to choose`;
    if (token !== null) {
      const when = streams.seconds ? ` (${((streams.seconds * token) / many).toPrecision(3)} s)` : "";
      const codes = Array.from({ length: Math.min(books, 16) }, (_, q) => `${data.books[q].name} ${codeAt(token, q)}`);
      text = `token ${token + 1} of ${many}${when}: ${codes.join(", ")}`;
    }
    byId("stream-note").textContent = text;
  }

  function tokenUnder(event) {
    const [, many, books] = streams.shape;
    const [x, y] = place(event, byId("raster"));
    return [Math.min(many - 1, Math.floor(x * many)), Math.min(books - 1, Math.floor(y * books))];
  }

  let player = null; // the sound that is heard

  function play(which, parts) { // parts: [begin, end) in shares of the window, one after the other
    const all = new Int16Array(unpacked(streams[which]).buffer);
    const long = all.length / streams.shape[0];
    const own = all.subarray(stream * long, (stream + 1) * long);
    const cut = parts.map(([a, b]) => own.subarray(Math.floor(a * long), Math.ceil(b * long)));
    const context = (play.context ??= new AudioContext());
    const sound = context.createBuffer(1, Math.max(1, cut.reduce((n, part) => n + part.length, 0)), streams.rate);
    let at = 0;
    for (const part of cut) {
      sound.getChannelData(0).set(Float32Array.from(part, (v) => v / 32768), at);
      at += part.length;
    }
    player?.stop();
    player = context.createBufferSource();
    player.buffer = sound;
    player.connect(context.destination);
    player.start();
  }

  function playCode() { // a quarter of a second around its first places
    const [, many] = streams.shape;
    const [q, around] = [data.books.indexOf(book), 0.125 / streams.seconds];
    const parts = [];
    for (let token = 0; token < many && parts.length < 8; token++) {
      const middle = (token + 0.5) / many;
      if (codeAt(token, q) !== number(chosen) || (parts.length && middle < parts.at(-1)[1])) continue;
      parts.push([Math.max(0, middle - around), Math.min(1, middle + around)]);
    }
    if (parts.length) play("sound", parts);
  }

  function startStreams() {
    const [windows] = streams.shape;
    for (let i = 0; i < windows; i++) byId("stream").add(new Option(i + 1, i));
    byId("stream").addEventListener("change", (event) => drawStream(Number(event.target.value)));
    byId("raster").addEventListener("pointermove", (event) => showStreamNote(tokenUnder(event)[0]));
    byId("raster").addEventListener("pointerleave", () => showStreamNote(null));
    byId("raster").addEventListener("click", (event) => {
      const [token, q] = tokenUnder(event);
      const code = codeAt(token, q);
      if (code < 0) return;
      byId("book").value = q;
      if (data.books[q] !== book) show(q);
      const index = book.codes ? book.codes.indexOf(code) : code;
      if (index >= 0) choose(index);
    });
    byId("play").addEventListener("click", () => play("sound", [[0, 1]]));
    byId("play-rebuilt").addEventListener("click", () => play("rebuilt", [[0, 1]]));
    byId("play-code").addEventListener("click", playCode);
    byId("play").hidden = byId("play-code").hidden = !streams.sound;
    byId("play-rebuilt").hidden = !streams.rebuilt;
    byId("streams").hidden = false;
    drawStream(0);
  }

  function image(piece) {
    const [, channels, high, wide] = pieces.shape;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [wide, high];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(wide, high);
    const from = piece * channels * high * wide;
    for (let i = 0; i < high * wide; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = bytes[from + (channels === 3 ? c : 0) * high * wide + i];
      pixels.data[4 * i + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function place(event, svg) {
    const box = svg.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function nearest(event) {
    const box = map.getBoundingClientRect();
    const side = Math.min(box.width, box.height); // the drawing is square and centred
    const x = 0.5 + (event.clientX - box.left - box.width / 2) / side;
    const y = 0.5 + (event.clientY - box.top - box.height / 2) / side;
    let [best, least] = [0, Infinity];
    for (const code of order) {
      const away = (at(book.x[code]) / 400 - x) ** 2 + (1 - at(book.y[code]) / 400 - y) ** 2;
      if (away < least) [best, least] = [code, away];
    }
    return best;
  }

  const step = (by) => choose(order[Math.max(0, Math.min(order.length - 1, rank[chosen] + by))]);
  const keys = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };

  bars.addEventListener("click", (event) => {
    choose(order[Math.min(order.length - 1, Math.floor(place(event, bars)[0] * order.length))]);
  });
  bars.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    step(keys[event.key]);
  });
  map.addEventListener("click", (event) => choose(nearest(event)));
  map.addEventListener("pointermove", (event) => showMapNote(nearest(event)));
  map.addEventListener("pointerleave", () => showMapNote(null));
  byId("less").addEventListener("click", () => step(1));
  byId("more").addEventListener("click", () => step(-1));
  byId("code").addEventListener("change", (event) => {
    const wanted = Number(event.target.value);
    const index = book.codes ? book.codes.indexOf(wanted) : wanted;
    if (Number.isInteger(index) && index >= 0 && index < order.length) choose(index);
  });
  byId("book").addEventListener("change", (event) => show(Number(event.target.value)));

  if (!data.books.length) return;
  data.books.forEach((each, i) => byId("book").add(new Option(each.name, i)));
  byId("explorer").hidden = false;
  show(0);
  if (streams) startStreams();
})();
