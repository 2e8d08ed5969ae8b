// A photograph: by the computer's camera, or by the camera app of a phone.

import { h } from "./dom.js";
import { t } from "./i18n.js";

/** Returns a File, or null: nothing was taken. */
export function takePhoto(signal) {
  // Browsers hand out the camera only to pages from this machine or over HTTPS.
  const canSee = navigator.mediaDevices && !matchMedia("(pointer: coarse)").matches;
  return canSee ? byCamera(signal) : byFileInput();
}

function byFileInput() {
  return new Promise((resolve) => {
    const done = (event) => resolve(event.target.files[0] ?? null);
    const cancel = () => resolve(null);
    h("input", { type: "file", accept: "image/*", capture: "environment", onchange: done, oncancel: cancel })
      .click();
  });
}

async function byCamera(signal) {
  const video = h("video", { autoplay: true, muted: true, playsinline: true, "aria-label": t("camera.picture") });
  const notice = h("p", { class: "error", role: "alert" });
  const take = h("button", { class: "primary", value: "take", disabled: true }, t("camera.take"));
  const dialog = h("dialog", { class: "camera", "aria-label": t("classify.photograph") },
    h("form", { method: "dialog" }, h("h2", {}, t("classify.photograph")), video, notice,
      h("div", { class: "row" }, take, h("button", { value: "" }, t("key.cancel")))));
  video.onloadeddata = () => { take.disabled = false; };
  document.body.append(dialog);
  dialog.showModal();
  const closed = new Promise((resolve) => { dialog.addEventListener("close", resolve); });
  signal.addEventListener("abort", () => dialog.close());
  const stream = navigator.mediaDevices.getUserMedia({ video: true });
  stream.then((it) => { video.srcObject = it; }, () => { notice.textContent = t("camera.none"); });
  await closed;
  const photo = dialog.returnValue === "take" ? await grab(video) : null;
  dialog.remove();
  stream.then((it) => it.getTracks().forEach((track) => track.stop()), () => {});
  return photo;
}

async function grab(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  return new File([blob], "photo.jpg", { type: blob.type });
}
