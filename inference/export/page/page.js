"use strict";
// Reads a sound, cuts it as `headwater predict` does, and shows what the graph makes of it. `FACTS` comes from facts.js.

const MOST_BARS = 12;
const element = (id) => document.getElementById(id);
const chunks = { runtime: [], wasm: [], model: [] }; // bytes, from the files that load() adds
window.headwaterChunk = (name, text) => chunks[name].push(decoded(text));
let session;

function state(text, wrong = false) {
  element("state").textContent = text;
  element("state").className = wrong ? "wrong" : "";
}

function add(parent, tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text ?? "";
  parent.append(node);
  return node;
}

// a page that was opened from the disk may not fetch, but it may run scripts: the files hold base64
function load(file) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = () => { script.remove(); done(); };
    script.onerror = () => failed(new Error(`Expected ${file} beside index.html, found none. Copy the whole folder.`));
    document.head.append(script);
  });
}

function decoded(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text); // browsers since 2025
  const signs = atob(text), bytes = new Uint8Array(signs.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = signs.charCodeAt(place);
  return bytes;
}

function bytesOf(name) {
  const parts = chunks[name];
  delete chunks[name];
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((place, part) => { whole.set(part, place); return place + part.length; }, 0);
  return whole;
}

function unzipped(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function start() {
  for (const file of FACTS.files) await load(file);
  const code = new Blob([bytesOf("runtime")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(code));
  ort.env.wasm.numThreads = 1; // more need headers that a folder has not
  ort.env.wasm.wasmBinary = await unzipped(bytesOf("wasm"));
  ort.env.logLevel = "error";
  const created = await ort.InferenceSession.create(bytesOf("model"), { executionProviders: ["wasm"], logSeverityLevel: 3 });
  session = { run: async (samples) => {
    const waveform = new ort.Tensor("float32", samples, [1, samples.length]);
    return (await created.run({ [FACTS.graph.input.name]: waveform }))[FACTS.graph.output.name];
  } };
  state("Ready.");
}

// float32 mono at the graph's rate: the browser decodes and resamples, the channels are averaged
async function waveformOf(content) {
  const context = new OfflineAudioContext(1, 1, FACTS.graph.sample_rate);
  let decoded;
  try {
    decoded = await context.decodeAudioData(content);
  } catch {
    throw new Error("Expected audio that this browser can decode, found something else. Try wav, mp3 or ogg.");
  }
  const mono = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    const values = decoded.getChannelData(channel);
    for (let place = 0; place < mono.length; place++) mono[place] += values[place] / decoded.numberOfChannels;
  }
  return mono;
}

// the fewest equal windows of at most so many samples; the first ones have one sample more
function windowsOf(samples) {
  const most = FACTS.graph.window_seconds * FACTS.graph.sample_rate;
  const count = Math.max(1, Math.ceil(samples.length / most));
  const size = Math.floor(samples.length / count), longer = samples.length % count;
  return Array.from({ length: count }, (_, place) => {
    const begin = place * size + Math.min(place, longer);
    return samples.slice(begin, begin + size + (place < longer ? 1 : 0));
  });
}

async function predict(content) {
  const samples = await waveformOf(content);
  const fewest = FACTS.graph.input.fewest_samples;
  if (samples.length < fewest) throw new Error(`Expected at least ${fewest} samples at 16 kHz, found ${samples.length}. Record it again.`);
  if (!FACTS.has_silence && samples.every((value) => value === 0)) throw new Error("Expected sound, found digital silence (zeros). Record it again.");
  const windows = windowsOf(samples), outputs = [];
  for (const window of windows) outputs.push(await session.run(window));
  return FACTS.kind === "text" ? { text: outputs.map(textOf).filter(Boolean).join(" ") } : { scores: mean(outputs, windows) };
}

function mean(outputs, windows) {
  const total = windows.reduce((sum, window) => sum + window.length, 0);
  return FACTS.names.map((_, place) => outputs.reduce((sum, output, at) => sum + output.data[place] * windows[at].length / total, 0));
}

// of each frame the best token; repeats are one, 0 is blank
function textOf(output) {
  const [, frames, tokens] = output.dims, found = [];
  let before = 0;
  for (let frame = 0; frame < frames; frame++) {
    const row = output.data.subarray(frame * tokens, (frame + 1) * tokens);
    const best = row.indexOf(Math.max(...row));
    if (best !== before && best !== 0) found.push(FACTS.names[best - 1]);
    before = best;
  }
  return FACTS.joined_by === "" ? found.join("").split(/\s+/).filter(Boolean).join(" ") : found.join(FACTS.joined_by);
}

function best(scores, begin, end) {
  let place = begin;
  for (let other = begin; other < end; other++) if (scores[other] > scores[place]) place = other;
  return place;
}

function labelPlaces(scores) {
  if (FACTS.kind === "ratings") return [];
  if (FACTS.threshold !== null) return [scores[1] >= FACTS.threshold ? 1 : 0];
  return FACTS.groups.map((group) => best(scores, group.begin, group.end));
}

function show({ text, scores }) {
  const list = element("scores");
  list.replaceChildren();
  element("result").hidden = false;
  if (FACTS.kind === "text") {
    element("label").textContent = text || "(nothing)";
    return;
  }
  const chosen = labelPlaces(scores);
  element("label").textContent = chosen.map((place) => FACTS.names[place]).join(", ");
  const [low, high] = FACTS.scale;
  for (const group of FACTS.groups) {
    if (group.name) add(list, "h2", "", group.name);
    const places = Array.from({ length: group.end - group.begin }, (_, place) => group.begin + place);
    if (places.length > MOST_BARS) places.sort((one, other) => scores[other] - scores[one]).splice(MOST_BARS);
    for (const place of places) {
      const row = add(list, "div", chosen.includes(place) ? "row best" : "row");
      add(row, "span", "", FACTS.names[place]).title = FACTS.names[place];
      const share = (scores[place] - low) / (high - low);
      add(add(row, "div", "track"), "div", "fill").style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
      add(row, "span", "number", scores[place].toFixed(3));
    }
  }
}

async function take(blob) {
  element("result").hidden = true;
  const player = element("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  try {
    state("Computing …");
    await new Promise((done) => setTimeout(done, 20)); // so that the line is drawn: the model holds this thread
    const began = performance.now();
    show(await predict(await blob.arrayBuffer()));
    state(`Computed in ${((performance.now() - began) / 1000).toFixed(2)} s.`);
  } catch (problem) {
    state(problem.message, true);
  }
}

let recorder = null;
async function record() {
  if (recorder) return recorder.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      element("record").textContent = "Record";
      recorder = null;
      take(new Blob(parts, { type: parts[0]?.type }));
    };
    recorder.start();
    element("record").textContent = "Stop";
    state("Recording …");
  } catch (problem) {
    recorder = null;
    state(`Expected a microphone, found: ${problem.message}. Allow it, or choose a file.`, true);
  }
}

document.title = element("title").textContent = FACTS.title;
element("about").textContent = FACTS.about;
element("licence").textContent = FACTS.licence;
for (const mark of FACTS.marks) add(element("marks"), "div", "mark", `${mark}: not a result to quote`);
element("record").addEventListener("click", record);
element("file").addEventListener("change", (event) => { if (event.target.files[0]) take(event.target.files[0]); });
for (const input of ["file", "record"]) element(input).disabled = true;
start().then(
  () => { for (const input of ["file", "record"]) element(input).disabled = false; },
  (problem) => state(problem.message, true),
);
