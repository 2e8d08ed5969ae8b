// What the gateway serves, what it does not and why, and how that performs; asked every 2 s.

import { grouped, h } from "./dom.js";
import { errorBox } from "./errors.js";
import { t } from "./i18n.js";
import { courseOrder } from "./models.js";
import { withKey } from "./session.js";

const EVERY_MS = 2000;
const STAGES = ["decode", "preprocess", "queue", "compute"];

export async function showService(view, { signal }) {
  const notice = h("div");
  const body = h("div", { class: "stack-gap" }, h("p", { class: "loading" }, t("loading")));
  view.replaceChildren(
    h("div", { class: "intro" }, h("h1", {}, t("service.title")), h("p", {}, t("service.lead"))),
    notice, body);
  const open = new Set(); // versions whose ladder is unfolded
  let before = null;
  while (!signal.aborted) {
    try {
      const status = await withKey((client) => client.status({ signal }));
      const now = { at: performance.now(), answered: answered(status) };
      body.replaceChildren(...sections(status, rate(before, now), open));
      notice.replaceChildren();
      before = now;
    } catch (error) {
      if (error.name === "AbortError") return;
      notice.replaceChildren(errorBox(error));
      before = null;
      if (error.reason === "AUTH_REQUIRED") return;
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

function answered({ traffic }) {
  return traffic.reduce((sum, it) => sum + it.requests, 0);
}

function rate(before, now) {
  return before && ((now.answered - before.answered) * 1000) / (now.at - before.at);
}

function sections({ gateway, runners, models, traffic }, perSecond, open) {
  const order = (one, other) => (other.state === "FAILED") - (one.state === "FAILED")
    || courseOrder(one.model, other.model) || one.version - other.version;
  return [
    h("div", { class: "tiles" },
      tile(t("service.state"), gateway.is_ready ? t("service.ready") : t("service.not_ready"),
        gateway.why_not_ready, gateway.is_ready ? "good" : "bad"),
      tile(t("service.rate"), perSecond === null ? "…" : perSecond.toFixed(1), t("service.per_second")),
      tile(t("service.in_flight"), String(gateway.in_flight), t("service.images")),
      tile(t("service.uptime"), duration(gateway.uptime_s), `Convoy ${gateway.version}`)),
    ...runners.filter((it) => !it.is_reachable).map((it) =>
      h("p", { class: "error-box" }, h("b", {}, it.name), " ", it.fault)),
    h("section", {}, h("h2", {}, t("service.models")),
      h("div", { class: "versions" }, models.sort(order).map((it) => version(it, open)))),
    h("section", {}, h("h2", {}, t("service.traffic")),
      traffic.length ? h("div", { class: "versions" }, traffic.sort(order).map(flow))
        : h("p", { class: "empty" }, t("service.no_traffic"))),
  ];
}

function tile(title, value, note, tone = "") {
  return h("div", { class: `card tile-fact ${tone}` }, h("span", { class: "muted" }, title), h("b", {}, value),
    h("span", { class: "muted" }, note));
}

function duration(seconds) {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function version(it, open) {
  const name = `${it.model} v${it.version}`;
  const facts = [it.runtime, it.precision, it.device?.toUpperCase(), it.weights].filter(Boolean);
  const toggle = (event) => {
    if (event.target.open) open.add(name);
    else open.delete(name);
  };
  return h("article", { class: "card" },
    h("header", {}, h("h3", {}, name), h("span", { class: `state ${it.state.toLowerCase()}` }, it.state),
      it.is_default ? h("span", { class: "muted" }, t("service.default")) : null),
    it.weights === "random" ? h("p", { class: "shout" }, t("service.random")) : null,
    it.why_not_ready ? h("p", { class: "error" }, it.why_not_ready) : null,
    facts.length ? h("p", { class: "muted" }, facts.join(" · ")) : null,
    it.parity?.length ? h("details", { ontoggle: toggle, open: open.has(name) },
      h("summary", {}, t("service.parity")), h("ul", { class: "ladder" }, it.parity.map(rung))) : null);
}

function rung({ name, images, largest_difference: difference, tolerance, reported_only: isReported }) {
  const share = Math.min(1, difference / (tolerance || 1));
  return h("li", {}, h("span", {}, name),
    h("span", { class: "track" }, h("span", { class: "fill", style: { width: `${share * 100}%` } })),
    h("span", { class: "muted" }, isReported ? t("service.reported", { d: difference.toPrecision(2) })
      : t("service.rung", { d: difference.toPrecision(2), allowed: tolerance.toPrecision(2), n: images })));
}

function flow({ model, requests, errors, p50_ms: p50, p99_ms: p99, stages, batches }) {
  const refused = Object.entries(errors);
  return h("article", { class: "card" },
    h("header", {}, h("h3", {}, model || t("service.unknown")),
      h("span", { class: "muted" }, t("service.requests", { n: requests }))),
    p50 === null ? null : h("p", {}, t("service.latency", { p50, p99 })),
    stageBars(stages),
    batches.length ? counts(t("service.batches"), sizes(batches)) : null,
    refused.length ? counts(t("service.errors"), refused) : null);
}

function counts(title, pairs) {
  const most = Math.max(...pairs.map(([, n]) => n));
  return h("div", { class: "counts" }, h("h4", {}, title), h("ul", {}, pairs.map(([name, n]) =>
    h("li", {}, h("span", {}, name), h("span", { class: "track", "aria-hidden": "true" },
      h("span", { class: "fill", style: { width: `${(n / most) * 100}%` } })), h("b", {}, grouped(n))))));
}

// Buckets have upper bounds: 1, 2, 4 become "1", "2", "3–4".
function sizes(batches) {
  return batches.map(([size, n], i) => {
    const least = i ? batches[i - 1][0] + 1 : 1;
    return [least < size ? `${least}–${size}` : String(size), n];
  });
}

function stageBars(stages) {
  const shown = STAGES.filter((name) => stages[name]);
  if (!shown.length) return null;
  const total = shown.reduce((sum, name) => sum + stages[name].p50_ms, 0) || 1;
  return h("div", { class: "stages" },
    h("div", { class: "stack", "aria-hidden": "true" }, shown.map((name) =>
      h("span", { class: name, style: { width: `${(stages[name].p50_ms / total) * 100}%` } }))),
    h("p", { class: "legend" }, shown.map((name) =>
      h("span", { class: name }, `${t(`stage.${name}`)} ${stages[name].p50_ms.toFixed(2)} ms`))));
}
