// A scan and its mask in NiiVue, from files beside the page: no network, no server.
"use strict";

const sammix = {
  arrived: new Map(), // key -> what a file of scan data brought
  assets: "viewer/assets/",

  // Called by the files that write_viewer_scan() makes.
  scan(key, data) {
    this.arrived.set(key, data);
  },

  // A script element is the only reader of files that a page opened from disk has.
  script(source) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = source;
      element.onload = () => { element.remove(); resolve(); };
      element.onerror = () => { element.remove(); reject(new Error(`${source} is missing`)); };
      document.head.append(element);
    });
  },

  async data(key, source) {
    await this.script(source);
    const data = this.arrived.get(key);
    this.arrived.delete(key);
    if (!data) throw new Error(`${source} holds another scan`);
    return data;
  },
};

class ScanViewer {
  // `place` takes a canvas and a bar with one mark for each slice to review.
  constructor(place) {
    this.place = place;
    this.canvas = document.createElement("canvas");
    this.bar = document.createElement("div");
    this.bar.className = "review-bar";
    this.note = document.createElement("p");
    this.note.className = "viewer-note";
    const frame = document.createElement("div");
    frame.className = "viewer-frame";
    frame.append(this.canvas);
    place.replaceChildren(frame, this.bar, this.note);
    this.turn = 0; // the last scan asked for wins
  }

  async show(key, source, review) {
    const turn = ++this.turn;
    this.note.textContent = "Loading ...";
    try {
      if (!window.niivue) await sammix.script(sammix.assets + "niivue.js");
      const data = await sammix.data(key, source);
      if (turn !== this.turn) return;
      await this.draw(data, review);
      if (turn === this.turn) this.note.textContent = "";
    } catch (error) {
      if (turn === this.turn) this.note.textContent = `Cannot be shown: ${error.message}`;
    }
  }

  async draw(data, review) {
    if (!this.view) {
      this.view = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [1, 0.84, 0.04, 0.7], crosshairWidth: 0.8,
        crosshairWidthUnit: "mm", multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID, isRadiologicalConvention: true,
        multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS, dragAndDropEnabled: false, isColorbar: false,
        logLevel: "error",
      });
      await this.view.attachToCanvas(this.canvas);
      this.view.onLocationChange = (where) => this.mark(where);
    }
    const view = this.view;
    while (view.volumes.length) view.removeVolume(view.volumes[0]);
    const load = (base64, name, colormap, opacity) =>
      niivue.NVImage.loadFromBase64({ base64, name, colormap, opacity });
    const ct = await load(data.ct, "ct.nii.gz", "gray", 1);
    ct.cal_min = -140;
    ct.cal_max = 260;
    const mask = await load(data.mask, "mask.nii.gz", "red", 0.45);
    mask.cal_min = 0.5;
    mask.cal_max = 1.2;
    view.addVolume(ct);
    view.addVolume(mask);
    view.setSliceType(view.sliceTypeMultiplanar);
    view.setClipPlane([0.12, 180, 0]);
    view.setInterpolation(false);
    this.slices = data.slices;
    this.review = review;
    this.next = 0;
    this.marks();
    this.go(data.middle);
  }

  // The crosshair to a slice of the scan; the viewer's own grid may have fewer.
  go(slice) {
    const [x, y] = this.view.scene.crosshairPos;
    this.view.scene.crosshairPos = [x, y, (slice + 0.5) / this.slices];
    this.view.drawScene();
    this.here(slice);
  }

  nextReview() {
    if (!this.review?.length) return;
    this.go(this.review[this.next % this.review.length]);
    this.next += 1;
  }

  marks() {
    this.bar.replaceChildren();
    if (!this.review.length) {
      this.bar.textContent = "No slice stands out.";
      return;
    }
    this.bar.append("Slices to review: ");
    for (const slice of this.review) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = slice;
      button.dataset.slice = slice;
      button.onclick = () => this.go(slice);
      this.bar.append(button);
    }
  }

  mark(where) {
    if (where.frac && this.slices) this.here(Math.min(this.slices - 1, Math.floor(where.frac[2] * this.slices)));
  }

  here(slice) {
    for (const button of this.bar.querySelectorAll("button")) {
      button.classList.toggle("here", Number(button.dataset.slice) === slice);
    }
  }
}
