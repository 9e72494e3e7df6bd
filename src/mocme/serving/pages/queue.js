// What comes next for review: suggestions of an entity, of a question, or of a walk over the graph.

import * as api from "./api.js";
import { decidedFacts, key, likelihood } from "./fact.js";
import * as question from "./question.js";
import * as runs from "./runs.js";

const AT_ONCE = 12; // entities that one round asks about
const EACH = 6; // suggestions of each
const ROUNDS = 8; // rounds without a suggestion after which a walk ends
const PAGE = 500;

/** Suggestions one after the other, without those that were decided. */
export class Queue {
  /**
   * @param source {entity} or {head, relation} or {relation, tail} or {relation} or {}, and {min}.
   * @param decided keys of facts that were decided.
   */
  constructor(source, decided, signal) {
    this.source = source;
    this.seen = decided;
    this.signal = signal;
    this.items = [];
    this.walk = { frontier: [], visited: new Set(), opened: [], started: false };
    this.asked = false;
  }

  /** The next suggestion, left in its place; null where there are no more. */
  async peek() {
    if (!this.items.length) await this.fill();
    return this.items[0] ?? null;
  }

  /** Go past the first. */
  shift() {
    return this.items.shift();
  }

  /** Put one back in front. */
  unshift(item) {
    this.items.unshift(item);
  }

  async fill() {
    const { entity, head, tail } = this.source;
    if (entity || head || tail) {
      if (!this.asked) this.add(await this.listed());
      this.asked = true;
      return;
    }
    for (let round = 0; round < ROUNDS && !this.items.length; round += 1) {
      const names = await this.step();
      if (!names.length) return;
      this.add(await this.about(names));
    }
  }

  /** Add those that are new, best first. */
  add(predictions) {
    const { relation } = this.source;
    const fresh = predictions.filter((one) => {
      const id = key(one);
      const wanted = !one.known && !this.seen.has(id) && (!relation || one.relation === relation);
      if (wanted) decidedFacts(one).forEach((fact) => this.seen.add(key(fact)));
      return wanted;
    });
    this.items.push(...fresh);
  }

  async listed() {
    const { entity = "", head = "", relation = "", tail = "", min } = this.source;
    const asked = { head: entity || head, relation: entity ? "" : relation, tail, k: 100, among: "all", known: "hide", min };
    return question.ask(asked, { signal: this.signal });
  }

  /** Names that the walk has not asked about yet. */
  async step() {
    const walk = this.walk;
    if (!walk.started) {
      walk.started = true;
      walk.frontier = await this.seeds();
    }
    while (walk.frontier.length < AT_ONCE && walk.opened.length) {
      const name = walk.opened.shift();
      const found = await api.get("v1/neighbourhood", { name, limit: 40, ...runs.which() }, { signal: this.signal });
      walk.frontier.push(...found.nodes.map((node) => node.name));
      walk.frontier = [...new Set(walk.frontier)].filter((one) => !walk.visited.has(one));
    }
    const names = walk.frontier.splice(0, AT_ONCE);
    names.forEach((name) => walk.visited.add(name));
    walk.opened.push(...names);
    return names;
  }

  /** Where a walk begins: the entities with the most facts, which an empty search gives. */
  async seeds() {
    const { entities } = await api.get("v1/search", { k: 20, ...runs.which() }, { signal: this.signal });
    return entities.map((one) => one.name);
  }

  async about(names) {
    const questions = names.map((entity) => ({ ask: "missing", entity, k: EACH, min_probability: this.source.min, ...runs.which() }));
    const { answers } = await api.post("v1/batch", { questions }, { signal: this.signal });
    const found = answers.flatMap((answer) => answer.predictions ?? []);
    return found.sort((a, b) => worth(b) - worth(a));
  }
}

/** As the server orders what is missing: the probability, or the score where there is none. */
const worth = (one) => likelihood(one) ?? one.score ?? -Infinity;

/** Keys of all facts that were decided, and how many decisions there are. */
export async function allDecided(signal) {
  const keys = new Set();
  for (let offset = 0; ; ) {
    const answer = await api.get("v1/reviews", { offset, limit: PAGE, ...runs.which() }, { signal });
    answer.reviews.forEach((review) => keys.add(key(review)));
    offset += answer.reviews.length;
    if (!answer.reviews.length || offset >= answer.total) return keys;
  }
}
