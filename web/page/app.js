// The page: a conversation, its settings and its meter. The model is in a worker behind WgForge.

import { markdown } from "./markdown.js";
import { WgForge } from "./wgforge/js/wgforge.js";

const $ = (id) => document.getElementById(id);
const KEPT = "wgforge.page";
const SUGGESTIONS = {
  text: ["ROMEO:\n", "KING HENRY:\nWhat news from France?\n", "The moon\n"],
  chat: ["Explain how a GPU multiplies matrices.", "Write a haiku about shaders.", "What should I cook with lentils?"],
};

/** What outlives a reload: messages and settings. */
const state = { messages: [], model: "demo", temperature: 1, maxTokens: 512, thinking: false, ...restored() };
let model = null;
let stats = null;
let answer = null;
let loading = null;
/** Files the model came from, if it came from files. */
let source;
let bandwidthTried = false;
let tuning = null;

function restored() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(state));
  } catch {
    // A private window: the conversation lives as long as the page.
  }
}

function status(text) {
  $("status").textContent = text;
}

// ---- messages ----

function element(name, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(name), attributes);
  node.append(...children);
  return node;
}

/** Draws a message; gives its element. */
function show(message, node = element("li")) {
  const plain = message.role === "assistant" && stats && !stats.chat;
  node.className = `message ${message.role}${plain ? " plain" : ""}`;
  const who = element("span", { className: "hidden" }, message.role === "user" ? "You: " : "Answer: ");
  const body = element("div", { className: "body" });
  if (message.role === "user" || plain) body.append(message.content);
  else body.append(...markdown(message.content));
  node.replaceChildren(who);
  if (message.thoughts) {
    node.append(element("details", { className: "thought" }, element("summary", {}, "Thoughts"), ...markdown(message.thoughts)));
  }
  node.append(body);
  if (message.about) node.append(element("p", { className: "about" }, message.about));
  if (message.error) node.append(element("p", { className: "error", role: "alert" }, message.error));
  return node;
}

function showAll() {
  $("messages").replaceChildren(...state.messages.map((message) => show(message)));
  $("welcome").hidden = state.messages.length > 0;
  $("welcome-demo").hidden = state.model !== "demo";
  const texts = SUGGESTIONS[stats?.chat ? "chat" : "text"];
  $("suggestions").replaceChildren(
    ...texts.map((text) => {
      const button = element("button", { type: "button" }, text.trim());
      button.onclick = () => send(text);
      return element("li", {}, button);
    }),
  );
  toEnd();
}

function atEnd() {
  const main = $("conversation");
  return main.scrollHeight - main.scrollTop - main.clientHeight < 80;
}

function toEnd() {
  $("conversation").scrollTop = $("conversation").scrollHeight;
}

// ---- answers ----

async function send(text) {
  if (!model || answer || tuning) return;
  if (text.trim()) state.messages.push({ role: "user", content: text });
  else if (!state.messages.length) return;
  $("prompt").value = "";
  const message = { role: "assistant", content: "", thoughts: "" };
  const messages = state.messages.map(({ role, content }) => ({ role, content }));
  state.messages.push(message);
  showAll();
  keep();
  const node = $("messages").lastElementChild;
  // Screen readers get the answer when it is whole, not word by word.
  node.setAttribute("aria-busy", "true");
  answer = new AbortController();
  busy();
  const begun = performance.now();
  let [tokens, first, drawn] = [0, 0, false];
  const draw = () => {
    drawn = false;
    const follow = atEnd();
    show(message, node);
    node.classList.toggle("waiting", Boolean(answer));
    const s = (performance.now() - begun - first) / 1000;
    if (tokens > 8) $("m-speed").textContent = ((tokens - 1) / s).toFixed(1);
    if (follow) toEnd();
  };
  draw();
  try {
    const options = {
      temperature: state.temperature,
      maxTokens: state.maxTokens,
      thinking: state.thinking,
      signal: answer.signal,
      onNotice: status,
    };
    for await (const piece of model.chat(messages, options)) {
      if (!tokens++) {
        first = performance.now() - begun;
        $("m-first").textContent = time(first / 1000);
      }
      if (piece.thought) message.thoughts += piece;
      else message.content += piece;
      // A hidden page draws nothing; the answer comes all the same.
      if (!drawn && !document.hidden) {
        drawn = true;
        requestAnimationFrame(draw);
      }
    }
    // A second of a GPU's time, once; in software it would be many.
    if (stats && !bandwidthTried && stats.deviceType !== "cpu") {
      bandwidthTried = true;
      await model.bandwidth().catch(() => {});
    }
    stats = await model.stats();
    const { last } = stats;
    if (last) message.about = `${last.tokens} tokens, ${last.tokensPerSecond.toFixed(1)} tokens/s${last.ended === "abort" ? ", stopped" : last.ended === "length" ? ", cut off at the limit" : ""}`;
    status("");
  } catch (error) {
    message.error = explain(error);
    // Whoever cannot even be asked how it is must be loaded again.
    if (model && !(await model.stats().catch(() => null))) {
      model.dispose();
      model = null;
    }
  } finally {
    answer = null;
    node.removeAttribute("aria-busy");
    draw();
    meter();
    keep();
    busy();
    if (!model && !loading) load(source);
  }
}

function explain(error) {
  return `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;
}

function busy() {
  $("send").disabled = !model || Boolean(answer);
  $("send").hidden = Boolean(answer);
  $("stop").hidden = !answer;
  $("new").disabled = Boolean(answer);
}

// ---- loading ----

function size(bytes) {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

function time(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

function progress(event) {
  if (event.phase === "notice") return status(event.message);
  if (event.phase === "compile") {
    $("progress").removeAttribute("value");
    $("progress-text").textContent = "Compiling the kernels";
    return;
  }
  $("progress").value = event.total ? event.loaded / event.total : 0;
  const what = event.phase === "download" ? "Fetching" : "Filling the GPU";
  const rest = event.secondsLeft == null ? "" : `, ${time(event.secondsLeft)} left`;
  $("progress-text").textContent = `${what}: ${size(event.loaded)} of ${size(event.total)}, ${size(event.bytesPerSecond)}/s${rest}`;
}

async function load(files) {
  source = files;
  loading?.abort();
  const controller = (loading = new AbortController());
  model?.dispose();
  model = stats = null;
  busy();
  $("loading").hidden = false;
  $("progress").removeAttribute("value");
  $("progress-text").textContent = "Starting";
  status("Loading the model…");
  try {
    const loaded = await WgForge.load({ model: state.model, files, onProgress: progress, signal: controller.signal, ...flags() });
    if (loading !== controller) return loaded.dispose();
    model = loaded;
    stats = await model.stats();
    status("");
    keep();
  } catch (error) {
    if (loading !== controller) return;
    status(error.name === "AbortError" ? "Loading was stopped; what arrived is kept." : explain(error));
  } finally {
    if (loading === controller) {
      loading = null;
      $("loading").hidden = true;
      showAll();
      meter();
      busy();
      kept();
    }
  }
}

/** `?no-f16&no-subgroups&baseline&f32` leave capabilities unused, to see how the page does without. */
function flags() {
  const query = new URLSearchParams(location.search);
  return { noF16: query.has("no-f16"), noSubgroups: query.has("no-subgroups"), baselineLimits: query.has("baseline"), ...(query.has("f32") && { activations: "f32", kv: "f32" }) };
}

function meter() {
  const last = stats?.last;
  const put = (id, text) => ($(id).textContent = text ?? "–");
  put("m-adapter", stats && `${stats.adapter || "unnamed"} (${stats.class})`);
  put("m-kernels", stats && `${stats.kernels}, ${stats.why}`);
  put("m-speed", last?.tokensPerSecond ? last.tokensPerSecond.toFixed(1) : null);
  put("m-first", last && time(last.firstTokenSeconds));
  put("m-context", last && `${last.promptTokens + last.tokens} of ${stats.maxTokens}`);
  const share = stats?.readBandwidth && last ? (stats.weightBytesPerToken * last.tokensPerSecond) / stats.readBandwidth : null;
  put("m-bandwidth", share && `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`);
}

async function kept() {
  const names = await WgForge.kept().catch(() => []);
  $("kept").replaceChildren(
    ...names.map((name) => {
      const button = element("button", { type: "button" }, "Remove");
      button.onclick = async () => {
        await WgForge.remove(name);
        kept();
      };
      return element("p", {}, `Kept here: ${name} `, button);
    }),
  );
}

// ---- what people do ----

$("form").onsubmit = (event) => {
  event.preventDefault();
  send($("prompt").value);
};

$("prompt").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send($("prompt").value);
  }
};

document.onkeydown = (event) => {
  if (event.key === "Escape" && answer) answer.abort();
  if (event.altKey && event.key.toLowerCase() === "n") renew();
};

function renew() {
  if (answer) return;
  state.messages = [];
  model?.reset();
  showAll();
  keep();
  $("prompt").focus();
}

$("stop").onclick = () => answer?.abort();
$("new").onclick = renew;
$("load-stop").onclick = () => loading?.abort();

$("settings-open").onclick = () => {
  for (const radio of document.getElementsByName("model")) radio.checked = radio.value === state.model;
  if (![...document.getElementsByName("model")].some((radio) => radio.checked)) {
    document.querySelector("input[name=model][value=other]").checked = true;
    $("model-url").value = state.model;
  }
  $("temperature").value = state.temperature;
  $("temperature-value").textContent = Number(state.temperature).toFixed(1);
  $("max-tokens").value = state.maxTokens;
  $("thinking").checked = state.thinking;
  $("settings").showModal();
};

$("temperature").oninput = () => {
  state.temperature = Number($("temperature").value);
  $("temperature-value").textContent = state.temperature.toFixed(1);
  keep();
};

$("max-tokens").onchange = () => {
  state.maxTokens = Math.max(1, Math.min(32768, Math.round(Number($("max-tokens").value)) || 512));
  $("max-tokens").value = state.maxTokens;
  keep();
};

$("thinking").onchange = () => {
  state.thinking = $("thinking").checked;
  keep();
};

$("tune").onclick = async () => {
  if (tuning) return tuning.abort();
  if (!model || answer) return;
  tuning = new AbortController();
  $("tune").textContent = "Stop";
  try {
    const onProgress = (event) => {
      if (event.kernel) $("tune-text").textContent = `${event.done} of ${event.count}: ${event.kernel}`;
      else if (event.confirming !== undefined) $("tune-text").textContent = "Comparing whole tokens";
    };
    const tuned = await model.autotune({ budgetMs: 60_000, onProgress, signal: tuning.signal });
    const speeds = `${tuned.before.toFixed(1)} tokens/s before, ${tuned.after.toFixed(1)} after`;
    $("tune-text").textContent = tuned.changed
      ? `${tuned.changed} of ${tuned.settled} kernels changed: ${speeds}; ${tuned.kept ? "kept" : "not kept"}.`
      : `${tuned.settled} kernels searched, none faster.`;
    $("tuned").href = URL.createObjectURL(new Blob([tuned.toml], { type: "application/toml" }));
    $("tuned").hidden = false;
    stats = await model.stats();
    meter();
  } catch (error) {
    $("tune-text").textContent = explain(error);
  } finally {
    tuning = null;
    $("tune").textContent = "Tune for this GPU";
  }
};

$("model-url").onfocus = () => (document.querySelector("input[name=model][value=other]").checked = true);

$("load").onclick = () => {
  const chosen = document.querySelector("input[name=model]:checked").value;
  const wanted = chosen === "other" ? $("model-url").value.trim() : chosen;
  if (!wanted) return $("model-url").focus();
  $("settings").close();
  state.model = wanted;
  load();
};

$("model-files").onchange = () => {
  const files = [...$("model-files").files];
  if (!files.length) return;
  $("settings").close();
  load(files);
};

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  const files = [...event.dataTransfer.files];
  if (files.length) load(files);
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && answer) {
    const message = state.messages.at(-1);
    show(message, $("messages").lastElementChild);
  }
});
addEventListener("pagehide", keep);

// Offline next time; where workers of this kind are not allowed, the page does without.
navigator.serviceWorker?.register("sw.js").catch(() => {});
showAll();
load();
// For tests, and for the curious at the console.
globalThis.wgforge = { get model() { return model; }, WgForge };
