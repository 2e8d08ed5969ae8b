// The frame of the page: navigation, language, and one view at a time.

import { showApi } from "./api.js";
import { showClassify } from "./classify.js";
import { showDraw } from "./draw.js";
import { errorBox } from "./errors.js";
import { showFolder } from "./folder.js";
import { LANGUAGES, chooseLanguage, chosenLanguage, loadTexts, t } from "./i18n.js";
import { h } from "./dom.js";
import { showNetworks } from "./networks.js";
import { showService } from "./service.js";

const VIEWS = {
  classify: showClassify,
  draw: showDraw,
  folder: showFolder,
  networks: showNetworks,
  service: showService,
  api: showApi,
};

let leave = null; // ends what the view that is shown has begun

async function start() {
  await loadTexts(chosenLanguage());
  const main = h("main", { id: "main", tabindex: "-1" });
  document.body.replaceChildren(skipLink(main), header(), main, footer());
  await show(main);
  addEventListener("hashchange", () => show(main));
}

function skipLink(main) {
  const skip = (event) => {
    event.preventDefault();
    main.focus();
  };
  return h("a", { href: "#main", class: "skip", onclick: skip }, t("nav.skip"));
}

async function show(main) {
  const [, name, argument] = location.hash.split("/");
  const shown = name in VIEWS ? name : "classify";
  leave?.abort();
  leave = new AbortController();
  const view = h("div", { class: `view ${shown}` }, h("p", { class: "loading" }, t("loading")));
  main.replaceChildren(view);
  document.title = `${t(`nav.${shown}`)} · Convoy`;
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.hash === `#/${shown}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await VIEWS[shown](view, { signal: leave.signal, argument });
  } catch (error) {
    if (error.name !== "AbortError") view.replaceChildren(errorBox(error));
  }
}

function header() {
  const links = Object.keys(VIEWS).map((name) => h("a", { href: `#/${name}` }, t(`nav.${name}`)));
  const options = Object.entries(LANGUAGES).map(([language, name]) =>
    h("option", { value: language, lang: language, selected: language === chosenLanguage() }, name));
  const choose = (event) => {
    chooseLanguage(event.target.value);
    location.reload();
  };
  const language = h("select", { "aria-label": t("nav.language"), onchange: choose }, options);
  const brand = h("a", { href: "#/classify", class: "brand" },
    h("img", { src: "/page/icon.svg", alt: "", width: 24, height: 24 }), "Convoy");
  return h("header", {}, brand, h("nav", { "aria-label": t("nav.label") }, links), language);
}

function footer() {
  return h("footer", {}, t("footer"));
}

start();
