// Measures the ways from this browser to the nodes of a Portolan mesh, and tells the mesh.
//
//     import { survey } from "https://gateway.example/v1/probe.js";
//     const seen = await survey("https://gateway.example");   // [{ node: "fra-1", rtt_ms: 12.3 }]

/** Round trips taken of each way; the least of them is told. */
const SAMPLES = 3;
/** A node that does not answer within this is left out. */
const PATIENCE_MS = 2000;

/** Asks the node at `base` what to measure, measures it, and reports it there. */
export async function survey(base, samples = SAMPLES) {
  const { survey } = await (await fetch(`${base}/v1/resolve`, { cache: "no-store" })).json();
  const ways = Object.entries(survey.nodes).map(async ([node, url]) => {
    const rtt_ms = await least(url, samples);
    return Number.isFinite(rtt_ms) ? [{ node, rtt_ms }] : [];
  });
  const observations = (await Promise.all(ways)).flat();
  if (observations.length > 0) {
    await fetch(`${base}/v1/observations`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ticket: survey.ticket, observations }),
    });
  }
  return observations;
}

/** The least time of `samples` requests, after one that opens the connection. */
async function least(url, samples) {
  let best = Infinity;
  for (let n = 0; n <= samples; n += 1) {
    const begun = performance.now();
    try {
      await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    } catch {
      return best;
    }
    if (n > 0) best = Math.min(best, performance.now() - begun);
  }
  return best;
}
