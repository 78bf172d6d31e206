// A page of plain objects, in which the script under test runs. An element keeps what was put in it; setting markup is an error.
const assert = require("assert");

class Element {
  constructor(name) { this.name = name; this.children = []; this.listeners = {}; this.text = ""; this.value = ""; this.className = ""; }
  set textContent(v) { this.text = String(v); this.children = []; }
  get textContent() { return this.text + this.children.map(c => c.textContent).join(""); }
  set innerHTML(v) { throw new Error("markup was set: " + v); }
  set outerHTML(v) { throw new Error("markup was set: " + v); }
  append(...all) { for (const c of all) assert(c instanceof Element, "a string was appended"); this.children.push(...all); }
  prepend(...all) { this.children.unshift(...all); }
  replaceChildren(...all) { this.children = []; this.append(...all); }
  get childElementCount() { return this.children.length; }
  get lastElementChild() { const list = this.children; const last = list[list.length - 1]; last.remove = () => list.pop(); return last; }
  addEventListener(name, f) { this.listeners[name] = f; }
  find(name) { return this.children.flatMap(c => [...(c.name === name ? [c] : []), ...c.find(name)]); }
}

const elements = {};
const hostile = '<img src=x onerror=alert(1)>';
const answer = {
  hits: ["javascript:alert(1)", "https://example.org/a", "data:text/html,x", "", "//elsewhere"].map((url, i) => ({
    id: hostile, document: hostile, version: 7, text: hostile + "</script><script>alert(2)</script>", start: 0, end: 5, score: 0.0325,
    title: i === 3 ? "" : hostile, url, metadata: {}, updated_at: "2026-11-21T10:00:03Z", searchable_at: "2026-11-21T10:00:03Z",
  })),
  mode: "hybrid", generation: {name: hostile, alias: "live", recipe: {}},
  freshness: {as_of: "2026-11-21T10:00:03Z", lag: "38ms", pending: 2, satisfied: true}, took: {total: "4.1ms", embed: "2ms", search: "1ms"},
};
const sources = {};
globalThis.document = {hidden: false, getElementById: id => elements[id] ??= new Element(id), createElement: name => new Element(name), addEventListener() {}};
globalThis.location = {search: "?q=refunds"};
globalThis.history = {replaceState() {}};
globalThis.requestAnimationFrame = f => setImmediate(f);
globalThis.EventSource = class { constructor(url) { this.listeners = {}; sources[url] = this; } addEventListener(name, f) { this.listeners[name] = f; } close() {} };
let requests = [];
let spending = {today: {cost_usd: 0, tokens_billed: 0}}, generations = [], looks = [];
const looked = {"/spending?days=1": () => spending, "/generations": () => generations};
globalThis.fetch = async (url, options) => {
  if (looked[url]) { looks.push(url); return {ok: true, json: async () => looked[url]()}; }
  requests.push([url, JSON.parse(options.body)]);
  return {ok: true, json: async () => answer};
};
let clockMs = 0;
globalThis.performance = {now: () => clockMs};
const hidden = name => elements[name + "-row"]?.hidden !== false;

async function verify() {
  await new Promise(r => setTimeout(r, 20));
  assert.deepStrictEqual(requests[0][0], "/retrieve");
  assert.deepStrictEqual(requests[0][1], {query: "refunds", k: 8}, "with a mode named there is no answer while the model is away");
  const hits = elements.hits.children;
  assert.strictEqual(hits.length, 5);
  for (const hit of hits) {
    assert.strictEqual(hit.find("h3")[0].textContent, hostile);
    assert(hit.textContent.includes("</script><script>alert(2)</script>"));
    assert.strictEqual(hit.find("img").length + hit.find("script").length, 0);
  }
  assert.deepStrictEqual(elements.hits.find("a").map(a => a.href), ["https://example.org/a"]);
  assert(elements.state.textContent.startsWith("5 hits in 4.1ms"), elements.state.textContent);
  assert.strictEqual(elements.degraded.hidden, true);
  const ask = async () => { requests = []; elements.ask.listeners.submit({preventDefault() {}}); await new Promise(r => setTimeout(r, 20)); };
  answer.mode = "lexical";
  answer.degraded = {code: "embedder_unavailable", detail: hostile};
  await ask();
  assert.strictEqual(elements.degraded.hidden, false);
  assert.strictEqual(elements.degraded.textContent, hostile);
  const well = globalThis.fetch;
  globalThis.fetch = async () => ({ok: false, json: async () => ({title: "x", detail: "no meaning"})});
  await ask();
  assert.deepStrictEqual([elements.state.textContent, elements.degraded.hidden], ["no meaning", true]);
  globalThis.fetch = well;
  delete answer.degraded;
  elements.mode.value = "dense";
  await ask();
  assert.deepStrictEqual([elements.degraded.hidden, elements.degraded.textContent, requests[0][1].mode], [true, "", "dense"]);
  elements.mode.value = "";

  for (let i = 0; i < 100; i++) {
    const change = {id: hostile + i, version: i, kind: i % 2 ? "delete" : "upsert", time: "2026-11-21T10:00:03Z", time_to_searchable: "31ms"};
    sources["/changes/stream"].listeners.change({data: JSON.stringify(change)});
  }
  await new Promise(r => setTimeout(r, 20));
  const changes = elements.changes.children;
  assert.strictEqual(changes.length, 40);
  assert.strictEqual(changes[0].children[0].textContent, hostile + "99");
  assert.strictEqual(changes[0].className, "delete");

  const latency = {p50: "12ms", p99: hostile, count: 3};
  const freshness = embedding => {
    const partitions = [{lag: 2, as_of: "2026-11-21T10:00:03Z"}, {lag: 1, as_of: "2026-11-21T10:00:02Z"}];
    sources["/freshness/stream"].listeners.freshness({data: JSON.stringify({time_to_searchable: latency, partitions, embedding})});
  };
  freshness({allowed_tokens_per_minute: 0, used_tokens_per_minute: 12345, throttled: "0s"});
  assert.strictEqual(elements.p99.textContent, hostile);
  assert.strictEqual(elements.lag.textContent, "3");
  assert.strictEqual(elements.providers.textContent, "ready in this process");
  assert.strictEqual(elements.used.textContent, "12,345");
  assert(!hidden("used") && ["requests", "throttled", "failed", "waited", "today"].every(hidden), "figures that a model here has not");
  await new Promise(r => setTimeout(r, 20));
  assert(hidden("today"), "what costs nothing is not told");
  await verifyProviders(freshness);

  elements.keep.checked = true;
  requests = [];
  sources["/changes/stream"].listeners.change({data: JSON.stringify({id: "a", version: 1, kind: "upsert", time: "2026-11-21T10:00:03Z", time_to_searchable: "1ms"})});
  await new Promise(r => setTimeout(r, 1100));
  assert.strictEqual(requests.length, 1, "asked again once");

  globalThis.fetch = async () => ({ok: false, json: async () => ({title: "x", detail: hostile})});
  elements.ask.listeners.submit({preventDefault() {}});
  await new Promise(r => setTimeout(r, 20));
  assert.strictEqual(elements.state.textContent, hostile);
  assert.strictEqual(elements.state.className, "bad");
}

// What the page says of the endpoints of the model, and of what they cost.
async function verifyProviders(freshness) {
  const p = {name: "http://p/v1", state: "held", detail: "its limits are 3 RPM and 10,000 TPM.", next_try: new Date(Date.now() + 12100).toISOString(), rpm: 3, tpm: 10000,
    requests: 1234, throttled: 5, failed: 0, tokens_last_minute: 9800, requests_last_minute: 2};
  const q = {name: hostile, state: "down", detail: hostile, next_try: "2026-11-21T10:00:03Z", requests: 1, throttled: 1, failed: 7, tokens_last_minute: 0, requests_last_minute: 0};
  const load = {allowed_tokens_per_minute: 10000, used_tokens_per_minute: 9800, throttled: "1m20.123s"};
  freshness({...load, providers: [p, q]});
  const [first, second] = elements.providers.children;
  assert.strictEqual(elements.providers.children.length, 2);
  assert.strictEqual(first.className, "held");
  assert.strictEqual(first.textContent, "at its limit http://p/v1" + "its limits are 3 RPM and 10,000 TPM; next request in 12 s" +
    "9,800 of 10,000 tokens in the last minute" + "2 of 3 requests in the last minute");
  assert.deepStrictEqual(first.find("meter").map(m => [m.value, m.max, m.ariaLabel]), [
    [9800, 10000, "tokens of the last minute, of those allowed"], [2, 3, "requests of the last minute, of those allowed"]]);
  assert.strictEqual(second.textContent, "down " + hostile + hostile + "; next try now" + "0 tokens in the last minute");
  assert.strictEqual(second.find("meter").length + second.find("img").length, 0);
  assert.deepStrictEqual(["requests", "throttled", "failed", "waited"].map(name => elements[name].textContent), ["1,235", "6", "7", "1m20s"]);
  assert(hidden("used"), "the tokens are told of each provider");
  assert.strictEqual(elements.news.textContent, "Embedding: http://p/v1 at its limit, " + hostile + " down");

  // What is read out does not change with every figure, and what stays the same is not drawn again.
  elements.news.text = "as it was";
  freshness({...load, providers: [{...p, tokens_last_minute: 9801}, q]});
  assert.strictEqual(elements.news.textContent, "as it was");
  assert(elements.providers.textContent.includes("9,801 of"));
  const drawn = elements.providers.children[0];
  freshness({...load, providers: [{...p, tokens_last_minute: 9801}, q]});
  assert.strictEqual(elements.providers.children[0], drawn);

  // Money, and other generations, are looked up every few seconds.
  assert.deepStrictEqual(looks, ["/spending?days=1", "/generations"]);
  spending = {today: {cost_usd: 0.00123, tokens_billed: 4567}, cap: {usd: 5, tokens: 90000}};
  generations = [
    {name: "main", alias: ["live"], trouble: {detail: "live is told already", provider: "down"}},
    {name: "same", alias: [], trouble: {detail: "the provider http://p/v1 holds us back", provider: "held"}},
    {name: "other", alias: [], trouble: {detail: hostile + "the cap is reached", provider: "paused", next_try: "2026-11-21T10:00:03Z"}},
    {name: "broken", alias: [], trouble: {detail: "the disk is full"}}, {name: "well", alias: []},
  ];
  clockMs += 5001;
  const again = async () => { freshness({...load, providers: [{...p, state: "ready", detail: undefined, next_try: undefined}]}); await new Promise(r => setTimeout(r, 20)); };
  await again();
  await again();
  assert.strictEqual(looks.length, 4);
  assert.strictEqual(elements.today.textContent, "$0.0012 of $5.00");
  assert.strictEqual(elements.billed.textContent, "4,567 of 90,000");
  assert.deepStrictEqual(elements.providers.children.map(li => li.children[0].textContent), ["ready http://p/v1", "paused for other"]);
  assert.strictEqual(elements.providers.children[1].children[1].textContent, hostile + "the cap is reached");
  assert.strictEqual(elements.providers.find("img").length, 0);
  spending = {today: {cost_usd: 2.5, tokens_billed: 4567}};
  clockMs += 5001;
  await again();
  assert.strictEqual(elements.today.textContent, "$2.50");
  assert(hidden("billed"), "a cap that there is no longer");
}
