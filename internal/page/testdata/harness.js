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
globalThis.fetch = async (url, options) => { requests.push([url, JSON.parse(options.body)]); return {ok: true, json: async () => answer}; };

async function verify() {
  await new Promise(r => setTimeout(r, 20));
  assert.deepStrictEqual(requests[0][0], "/retrieve");
  assert.strictEqual(requests[0][1].query, "refunds");
  const hits = elements.hits.children;
  assert.strictEqual(hits.length, 5);
  for (const hit of hits) {
    assert.strictEqual(hit.find("h3")[0].textContent, hostile);
    assert(hit.textContent.includes("</script><script>alert(2)</script>"));
    assert.strictEqual(hit.find("img").length + hit.find("script").length, 0);
  }
  assert.deepStrictEqual(elements.hits.find("a").map(a => a.href), ["https://example.org/a"]);
  assert(elements.state.textContent.startsWith("5 hits in 4.1ms"), elements.state.textContent);

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
  sources["/freshness/stream"].listeners.freshness({data: JSON.stringify({time_to_searchable: latency, partitions: [{lag: 2, as_of: "2026-11-21T10:00:03Z"}, {lag: 1, as_of: "2026-11-21T10:00:02Z"}]})});
  assert.strictEqual(elements.p99.textContent, hostile);
  assert.strictEqual(elements.lag.textContent, "3");

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
