// Shows two images of one slice with a divider between them. Native controls only, so that it
// works from the keyboard; everything comes from the JSON beside it.
(() => {
  const root = document.getElementById("viewer");
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const control = (name) => root.querySelector(`[name=${name}]`);
  const canvas = root.querySelector("canvas");
  const paint = canvas.getContext("2d");
  const decoded = new Map();

  const fill = (select, names, chosen) => {
    for (const name of names) select.add(new Option(name, name, false, name === chosen));
  };

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

  const gray = (hu, [low, high]) => {
    const value = Math.max(0, Math.min(255, Math.round((255 * (hu - low)) / (high - low))));
    return [value, value, value];
  };

  // blue below 0, white, red above: the same scale as the printed figures
  const color = (difference) => {
    const t = Math.max(-1, Math.min(1, difference / data.residual));
    const fade = Math.round(255 * (1 - Math.abs(t)));
    return t < 0 ? [fade, fade, 255] : [255, fade, fade];
  };

  const layer = async (place, name, window_) => {
    const [first, second] = name.split(data.minus);
    const one = await decode(place, first);
    const other = second ? await decode(place, second) : null;
    const image = new ImageData(one.width, one.height);
    for (let i = 0; i < one.hu.length; i++) {
      const shade = other ? color(one.hu[i] - other.hu[i]) : gray(one.hu[i], window_);
      image.data.set([...shade, 255], 4 * i);
    }
    return image;
  };

  const draw = async () => {
    const place = Number(control("slice").value);
    const window_ = data.windows[control("window").value];
    const names = ["left", "right"].map((side) => control(side).value);
    const [left, right] = await Promise.all(names.map((name) => layer(place, name, window_)));
    canvas.width = left.width;
    canvas.height = left.height;
    paint.putImageData(right, 0, 0);
    const edge = Math.round((left.width * Number(control("divider").value)) / 100);
    paint.putImageData(left, 0, 0, 0, 0, edge, left.height);
    if (edge > 0 && edge < left.width) {
      paint.fillStyle = "#f2c14e";
      paint.fillRect(edge - 0.5, 0, 1, left.height);
    }
    const shown = `left ${names[0]}, right ${names[1]}, ${control("window").value} window`;
    canvas.setAttribute("aria-label", `${data.slices[place].name}: ${shown}`);
    root.dataset.ready = "yes";
  };

  data.slices.forEach((each, place) => control("slice").add(new Option(each.name, place)));
  const sides = Object.keys(data.slices[0].sides);
  const differences = data.differences.map((pair) => pair.join(data.minus));
  fill(control("left"), [...sides, ...differences], sides[0]);
  fill(control("right"), [...sides, ...differences], sides[1]);
  fill(control("window"), Object.keys(data.windows));
  root.hidden = false;
  for (const kind of ["input", "change"]) root.addEventListener(kind, draw);
  draw();
})();
