// The page: reads the controls, asks the network, draws the image chosen and then every class from the same noise.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { flow, jump, normal, pixels, slerp } from "./sampling.js";

const SECONDS = 4; // of a walk between two noises
const get = (id) => document.getElementById(id);

ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };

let model, session;
const spent = { calls: 0, evaluations: 0, milliseconds: 0 };

// The network of sampling.js; lets the page answer before each call.
async function network(x, t, labels, r, weight = 1) {
  await new Promise((done) => setTimeout(done));
  const begin = performance.now();
  const every = (value) => new ort.Tensor("float32", new Float32Array(labels.length).fill(value), [labels.length]);
  const feeds = { x: new ort.Tensor("float32", x, [labels.length, ...model.shape]), t: every(t),
    y: new ort.Tensor("int32", labels, [labels.length]), r: every(r), w: every(weight) };
  const { u } = await session.run(Object.fromEntries(model.inputs.map((name) => [name, feeds[name]])));
  spent.calls += 1;
  spent.evaluations += labels.length;
  spent.milliseconds += performance.now() - begin;
  return u.data;
}

// The states [B * size] from noise to images. way: a number of jumps, or "flow" with a solver, steps and a weight.
export async function draw(noise, labels, { way, solver, steps, weight }) {
  if (way !== "flow") return jump(network, noise, labels, { steps: way, weight, clip: model.clip });
  return flow(network, noise, labels, { solver, steps, weight, clip: model.clip, untold: model.classes.length });
}

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

function settings() {
  const way = chosen("way");
  return { way: way === "flow" ? way : +way, solver: get("solver").value, steps: +get("steps").value,
    weight: get("guidance").hidden ? 1 : +get("weight").value };
}

const noises = new Map();

function noise(id) {
  const seed = get(id).checkValidity() ? get(id).valueAsNumber : 0;
  if (!noises.has(seed)) noises.set(seed, normal(seed, model.shape.reduce((a, b) => a * b)));
  return noises.get(seed);
}

function paint(canvas, x) {
  const [height, width, channels] = model.shape;
  const image = new ImageData(width, height), grey = pixels(x);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = grey[channels * i + (c % channels)];
    image.data[4 * i + 3] = 255;
  }
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

let wanted = 0, drawing = false;

// Draws until nothing new is wanted. While it walks only the large image is drawn.
async function redraw() {
  wanted += 1;
  if (drawing) return;
  drawing = true;
  get("image").setAttribute("aria-busy", true);
  for (let begun = 0; begun !== wanted; ) {
    begun = wanted;
    await drawOnce(() => begun !== wanted);
    if (walking) walk();
  }
  drawing = false;
  get("image").setAttribute("aria-busy", false);
}

async function drawOnce(stale) {
  const how = settings(), label = +chosen("class"), share = +get("share").value;
  const x0 = share === 0 ? noise("from") : slerp(noise("from"), noise("to"), share);
  Object.assign(spent, { calls: 0, evaluations: 0, milliseconds: 0 });
  const states = await draw(x0, Int32Array.of(label), how);
  paint(get("image"), states.at(-1));
  paint(tile(label), states.at(-1));
  showStates(states.slice(0, -1));
  tell(label);
  performance.mark("drawn");
  for (let other = 0; other < model.classes.length && !walking && !stale(); other++) {
    if (other !== label) paint(tile(other), (await draw(x0, Int32Array.of(other), how)).at(-1));
  }
}

const tile = (label) => get("classes").querySelectorAll("canvas")[label];

function showStates(states) {
  const canvases = states.map((_, i) => get("states").children[i] ?? document.createElement("canvas"));
  get("states").replaceChildren(...canvases);
  states.forEach((x, i) => paint(canvases[i], x));
}

function tell(label) {
  const { calls, evaluations, milliseconds } = spent;
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const batched = calls === evaluations ? "" : ` in ${plural(calls, "call")}`;
  get("cost").textContent = `${plural(evaluations, "evaluation")}${batched}, ${milliseconds.toFixed(0)} ms`;
  get("image").setAttribute("aria-label", `a drawn image of class ${model.classes[label]}`);
}

let walking = false, before = 0;

function walk() {
  const now = performance.now();
  let share = +get("share").value + (now - before) / 1000 / SECONDS;
  before = now;
  if (share >= 1) {
    get("from").value = get("to").value;
    get("to").value = newSeed();
    share -= Math.floor(share);
  }
  get("share").value = share;
  wanted += 1;
}

function setWalking(value) {
  [walking, before] = [value, performance.now()];
  get("play").setAttribute("aria-pressed", value);
  get("play").textContent = value ? "Stop" : "Walk";
  redraw();
}

const newSeed = () => Math.floor(Math.random() * 10000);

function showChoices() {
  const isFlow = chosen("way") === "flow";
  get("solving").hidden = !isFlow;
  get("guidance").hidden = isFlow ? !model.guided : model.weights === null;
  const [low, high] = isFlow || model.weights === null ? [0, 4] : model.weights;
  Object.assign(get("weight"), { min: low, max: high });
  for (const output of document.querySelectorAll("output[for]")) output.textContent = get(output.htmlFor.value).value;
}

const radio = (name, value, text, checked) =>
  `<label><input type="radio" name="${name}" value="${value}"${checked ? " checked" : ""}><span>${text}</span></label>`;

function build() {
  const jumps = model.inputs.includes("r") ? [1, 2, 4] : [];
  const ways = [...jumps.map((n) => [n, n === 1 ? "1 jump" : `${n} jumps`]), ["flow", "the flow"]];
  get("ways").innerHTML = ways.map(([value, text], i) => radio("way", value, text, i === 0)).join("");
  const tiles = model.classes.map((_, i) => radio("class", i, "", i === Math.min(3, model.classes.length - 1)));
  get("classes").innerHTML = tiles.join("");
  get("classes").querySelectorAll("span").forEach((span, i) => {
    span.append(document.createElement("canvas"), model.classes[i]);
  });
  get("about").textContent =
    `A network of ${(model.parameters / 1e6).toFixed(2)} million weights, trained with fmd, draws in this page. ` +
    "Nothing leaves it.";
  for (const [id, value] of Object.entries(model.flow)) get(id).value = value;
  [get("from").value, get("to").value] = [model.seed, model.seed + 1];
  showChoices();
}

function listen() {
  document.addEventListener("input", () => (showChoices(), redraw()));
  get("play").addEventListener("click", () => setWalking(!walking));
  for (const button of document.querySelectorAll("[data-seed]")) {
    button.addEventListener("click", () => ((get(button.dataset.seed).value = newSeed()), redraw()));
  }
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
}

// What JAX drew when the page was made, until the network is there.
async function showFirst() {
  const strip = await createImageBitmap(await (await fetch("first.png")).blob());
  const [height, width] = model.shape;
  const show = (canvas, label) => {
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(strip, -label * width, 0);
  };
  model.classes.forEach((_, label) => show(tile(label), label));
  show(get("image"), +chosen("class"));
  performance.mark("first");
}

try {
  model = await (await fetch("model.json")).json();
  build();
  await showFirst();
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  listen();
  await redraw();
} catch (error) {
  get("cost").textContent = `The page could not start: ${error.message}`;
  throw error;
}
