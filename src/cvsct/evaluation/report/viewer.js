// Shows two images of one slice with a divider between them. Native controls and keys, so that it
// works without a mouse; everything comes from the JSON beside it.
(() => {
  const root = document.getElementById("viewer");
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const control = (name) => root.querySelector(`[name=${name}]`);
  const canvas = root.querySelector("canvas");
  const paint = canvas.getContext("2d");
  const readout = root.querySelector("output");
  const CUSTOM = "own";
  const MAX_ZOOM = 16;
  const BLINK_MS = 600;
  const decoded = new Map();
  const layers = new Map();
  const view = { zoom: 1, x: 0, y: 0 }; // x and y: first column and row that are seen
  let window_ = Object.values(data.windows)[0];
  let cursor = null; // column and row that the keyboard points at
  let blinking = null; // the side that is seen alone
  let timer = 0;
  let drawn = 0;

  const limit = (value, low, high) => Math.max(low, Math.min(high, value));

  const decode = (place, side) => {
    const key = `${place}/${side}`;
    if (!decoded.has(key)) {
      decoded.set(key, new Promise((resolve, reject) => {
        const image = new Image();
        image.onerror = () => reject(new Error(`cannot decode ${side}`));
        image.onload = () => {
          const sheet = document.createElement("canvas");
          sheet.width = image.width;
          sheet.height = image.height;
          const pen = sheet.getContext("2d", { willReadFrequently: true });
          pen.drawImage(image, 0, 0);
          const bytes = pen.getImageData(0, 0, image.width, image.height).data;
          const hu = new Int16Array(image.width * image.height);
          for (let i = 0; i < hu.length; i++) hu[i] = bytes[4 * i] * 256 + bytes[4 * i + 1] - data.offset;
          resolve({ width: image.width, height: image.height, hu });
        };
        image.src = `data:image/png;base64,${data.slices[place].sides[side]}`;
      }));
    }
    return decoded.get(key);
  };

  // blue below 0, white, red above: the same scale as the printed figures
  const paintDifference = (bytes, one, other) => {
    for (let i = 0; i < one.length; i++) {
      const t = limit((one[i] - other[i]) / data.residual, -1, 1);
      const fade = Math.round(255 * (1 - Math.abs(t)));
      bytes[4 * i] = t < 0 ? fade : 255;
      bytes[4 * i + 1] = fade;
      bytes[4 * i + 2] = t < 0 ? 255 : fade;
      bytes[4 * i + 3] = 255;
    }
  };

  const paintGray = (bytes, hu, [low, high]) => {
    const scale = 255 / (high - low);
    for (let i = 0; i < hu.length; i++) {
      const value = Math.round(limit(scale * (hu[i] - low), 0, 255));
      bytes[4 * i] = bytes[4 * i + 1] = bytes[4 * i + 2] = value;
      bytes[4 * i + 3] = 255;
    }
  };

  // A sheet for each side of the divider, painted again only when what it shows has changed.
  const layer = async (slot, place, name) => {
    const key = [place, name, ...window_].join("/");
    const kept = layers.get(slot);
    if (kept && kept.key === key) return kept.sheet;
    const shades = window_;
    const [first, second] = name.split(data.minus);
    const one = await decode(place, first);
    const other = second ? await decode(place, second) : null;
    const image = new ImageData(one.width, one.height);
    if (other) paintDifference(image.data, one.hu, other.hu);
    else paintGray(image.data, one.hu, shades);
    const sheet = document.createElement("canvas");
    sheet.width = one.width;
    sheet.height = one.height;
    sheet.getContext("2d").putImageData(image, 0, 0);
    layers.set(slot, { key, sheet });
    return sheet;
  };

  const chosen = () => ["left", "right"].map((side) => control(side).value);
  const place = () => Number(control("slice").value);

  const draw = async () => {
    const turn = ++drawn;
    const names = chosen();
    const [left, right] = await Promise.all(names.map((name, i) => layer(i, place(), name)));
    if (turn !== drawn) return; // a later call paints
    if (canvas.width !== left.width || canvas.height !== left.height) {
      canvas.width = left.width;
      canvas.height = left.height;
    }
    const { width, height } = canvas;
    const [seenWide, seenHigh] = [width / view.zoom, height / view.zoom];
    view.x = limit(view.x, 0, width - seenWide);
    view.y = limit(view.y, 0, height - seenHigh);
    paint.imageSmoothingEnabled = false;
    const put = (sheet) => paint.drawImage(sheet, view.x, view.y, seenWide, seenHigh, 0, 0, width, height);
    const edge = blinking ? width * (blinking === "left") : Math.round((width * Number(control("divider").value)) / 100);
    put(right);
    paint.save();
    paint.beginPath();
    paint.rect(0, 0, edge, height);
    paint.clip();
    put(left);
    paint.restore();
    if (edge > 0 && edge < width) {
      paint.fillStyle = "#f2c14e";
      paint.fillRect(edge - 0.5, 0, 1, height);
    }
    if (cursor) {
      const [x, y] = [(cursor.x + 0.5 - view.x) * view.zoom, (cursor.y + 0.5 - view.y) * view.zoom];
      paint.strokeStyle = "#f2c14e";
      paint.strokeRect(x - 4, y - 4, 8, 8);
    }
    const shown = blinking ? names[blinking === "left" ? 0 : 1] : `left ${names[0]}, right ${names[1]}`;
    const zoomed = view.zoom > 1 ? `, ${view.zoom.toFixed(1)} times enlarged` : "";
    canvas.setAttribute("aria-label", `${data.slices[place()].name}: ${shown}, ${control("window").value} window${zoomed}`);
    root.classList.toggle("zoomed", view.zoom > 1);
    root.dataset.ready = "yes";
  };

  const read = async (x, y) => {
    const { name, sides } = data.slices[place()];
    const names = Object.keys(sides);
    const images = await Promise.all(names.map((side) => decode(place(), side)));
    if (x < 0 || y < 0 || x >= images[0].width || y >= images[0].height) return;
    const values = names.map((side, i) => `${side} ${images[i].hu[y * images[i].width + x]} HU`);
    readout.textContent = `${name}, row ${y}, column ${x}: ${values.join(", ")}`;
  };

  // Canvas pixels of an event, and the image pixel that they show.
  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    const [cx, cy] = [(event.clientX - box.left) * (canvas.width / box.width), (event.clientY - box.top) * (canvas.height / box.height)];
    return { cx, cy, x: Math.floor(view.x + cx / view.zoom), y: Math.floor(view.y + cy / view.zoom) };
  };

  const zoomBy = (factor, cx = canvas.width / 2, cy = canvas.height / 2) => {
    const zoom = limit(view.zoom * factor, 1, MAX_ZOOM);
    view.x += cx / view.zoom - cx / zoom;
    view.y += cy / view.zoom - cy / zoom;
    view.zoom = zoom;
    draw();
  };

  const showWindow = (name) => {
    control("window").value = name;
    control("width").value = window_[1] - window_[0];
    control("level").value = (window_[0] + window_[1]) / 2;
    draw();
  };

  const setWindow = (width, level) => {
    const half = Math.max(1, Math.round(width)) / 2;
    window_ = [Math.round(level) - half, Math.round(level) + half];
    showWindow(CUSTOM);
  };

  const windowBy = (wider, higher) => setWindow(window_[1] - window_[0] + wider, (window_[0] + window_[1]) / 2 + higher);

  const show = (number) => {
    control("slice").value = limit(number, 0, data.slices.length - 1);
    changed();
  };

  const withReason = (kind) => data.slices.map((each, i) => i).filter((i) => kind in data.slices[i].reasons);

  const jump = (kind) => {
    const places = withReason(kind);
    if (places.length) show(places.find((i) => i > place()) ?? places[0]);
  };

  const changed = () => {
    root.querySelector(".why").textContent = `Why this slice: ${Object.values(data.slices[place()].reasons).join("; ")}.`;
    if (cursor) read(cursor.x, cursor.y);
    draw();
  };

  // Never by itself: only who asks sees images change. Who wants less motion changes them by hand.
  const blink = () => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const turn = () => {
      blinking = blinking === "left" ? "right" : "left";
      draw();
    };
    if (timer || (still && blinking === "right")) {
      clearInterval(timer);
      timer = 0;
      blinking = null;
      draw();
    } else {
      turn();
      if (!still) timer = setInterval(turn, BLINK_MS);
    }
    control("blink").setAttribute("aria-pressed", String(blinking !== null));
  };

  const point = (dx, dy) => {
    const start = cursor ?? { x: Math.floor(view.x + canvas.width / view.zoom / 2), y: Math.floor(view.y + canvas.height / view.zoom / 2) };
    cursor = { x: limit(start.x + dx, 0, canvas.width - 1), y: limit(start.y + dy, 0, canvas.height - 1) };
    const [wide, high] = [canvas.width / view.zoom, canvas.height / view.zoom];
    view.x = limit(view.x, cursor.x + 1 - wide, cursor.x);
    view.y = limit(view.y, cursor.y + 1 - high, cursor.y);
    read(cursor.x, cursor.y);
    draw();
  };

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const keys = {
    "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), "0": () => zoomBy(0),
    b: blink, f: () => jump("flagged"), d: () => jump("largest"),
    PageUp: () => show(place() - 1), PageDown: () => show(place() + 1),
  };

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
    const arrow = event.target === canvas && arrows[event.key];
    if (arrow && event.shiftKey) windowBy(10 * arrow[0], 10 * arrow[1]);
    else if (arrow) point(...arrow);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => {
    cursor = null;
    draw();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || (event.deltaY > 0 && view.zoom === 1)) return; // the page scrolls on
    event.preventDefault();
    const { cx, cy } = spot(event);
    zoomBy(event.deltaY < 0 ? 1.25 : 0.8, cx, cy);
  }, { passive: false });

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    const windows = event.button === 2 || event.shiftKey;
    drag = { windows, x: event.clientX, y: event.clientY };
    if (windows || view.zoom > 1) canvas.setPointerCapture(event.pointerId);
    const { x, y } = spot(event);
    read(x, y);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      [drag.x, drag.y] = [event.clientX, event.clientY];
      if (drag.windows) {
        windowBy(2 * dx, 2 * dy);
      } else if (view.zoom > 1) {
        const scale = canvas.width / canvas.getBoundingClientRect().width / view.zoom;
        view.x -= dx * scale;
        view.y -= dy * scale;
        draw();
      }
    }
    const { x, y } = spot(event);
    read(x, y);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(end, () => { drag = null; });

  const fill = (select, names, first) => {
    for (const name of names) select.add(new Option(name, name, false, name === first));
  };
  data.slices.forEach((each, i) => {
    const kinds = Object.keys(each.reasons).filter((kind) => kind !== "spaced");
    const names = kinds.map((kind) => ({ flagged: "flagged", largest: "largest difference" })[kind]);
    control("slice").add(new Option([each.name, ...names].join(", "), i));
  });
  const sides = Object.keys(data.slices[0].sides);
  const differences = data.differences.map((pair) => pair.join(data.minus));
  fill(control("left"), [...sides, ...differences], sides[0]);
  fill(control("right"), [...sides, ...differences], sides[1]);
  fill(control("window"), [...Object.keys(data.windows), CUSTOM]);
  for (const kind of ["flagged", "largest"]) {
    control(kind).hidden = !withReason(kind).length;
    control(kind).textContent += ` (${withReason(kind).length})`;
    control(kind).addEventListener("click", () => jump(kind));
  }
  control("blink").addEventListener("click", blink);
  control("in").addEventListener("click", () => zoomBy(1.5));
  control("out").addEventListener("click", () => zoomBy(1 / 1.5));
  control("whole").addEventListener("click", () => zoomBy(0));
  control("slice").addEventListener("change", changed);
  control("divider").addEventListener("input", draw);
  for (const side of ["left", "right"]) control(side).addEventListener("change", draw);
  control("window").addEventListener("change", () => {
    const name = control("window").value;
    window_ = data.windows[name] ?? window_;
    showWindow(name);
  });
  for (const name of ["width", "level"]) control(name).addEventListener("change", () => setWindow(Number(control("width").value), Number(control("level").value)));
  root.hidden = false;
  showWindow(Object.keys(data.windows)[0]);
  changed();
})();
