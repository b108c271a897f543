// Search in pages that are opened from the disk. A browser starts no worker from file://, so the
// theme's search script runs in a hidden frame there. Pages of a server keep real workers.
"use strict";

if (location.protocol === "file:") {
  const runtime = `
    postMessage = data => parent.postMessage(data, "*");
    importScripts = async (...urls) => {
      for (const url of urls) {
        await new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = url;
          script.onload = resolve;
          script.onerror = reject;
          document.body.append(script);
        });
      }
    };`;

  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.document.open();
      inner.document.write(
        `<body><script>${runtime}<\/script><script src="${url}"><\/script></body>`
      );
      inner.document.close();
      this.ready = new Promise(resolve => inner.addEventListener("load", resolve));
      this.relay = event => {
        if (event.source === this.frame.contentWindow) {
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        }
      };
      window.addEventListener("message", this.relay);
    }

    async postMessage(data) {
      await this.ready;
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      window.removeEventListener("message", this.relay);
      this.frame.remove();
    }
  };
}
