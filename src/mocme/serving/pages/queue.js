// The queue of suggestions for review: of an entity, of a question, or of a walk over the graph.

import * as api from "./api.js";
import { decidedFacts, factKey, shownProbability } from "./fact.js";
import * as question from "./question.js";
import * as runs from "./runs.js";

const ENTITIES = 12; // entities per step of a walk
const SUGGESTIONS = 6; // suggestions per entity
const MAX_EMPTY_STEPS = 8; // steps without a suggestion after which a walk ends
const PAGE = 500; // reviews per request

/** Suggestions one after the other, without those already decided. */
export class Queue {
  /**
   * @param source {entity} or {head, relation} or {relation, tail} or {relation} or {}, and {min}.
   * @param decided keys of decided facts.
   */
  constructor(source, decided, signal) {
    this.source = source;
    this.seen = decided;
    this.signal = signal;
    this.items = [];
    // `frontier`: entities to visit next; `unexpanded`: visited ones without known neighbours.
    this.walk = { frontier: [], visited: new Set(), unexpanded: [], started: false };
    this.requested = false;
  }

  /** The next suggestion, without removing it; null if there are no more. */
  async peek() {
    if (!this.items.length) await this.fill();
    return this.items[0] ?? null;
  }

  /** Remove the first suggestion. */
  shift() {
    return this.items.shift();
  }

  /** Put a suggestion back in front. */
  unshift(item) {
    this.items.unshift(item);
  }

  async fill() {
    const { entity, head, tail } = this.source;
    if (entity || head || tail) {
      if (!this.requested) this.add(await this.answers());
      this.requested = true;
      return;
    }
    for (let step = 0; step < MAX_EMPTY_STEPS && !this.items.length; step += 1) {
      const names = await this.step();
      if (!names.length) return;
      this.add(await this.missing(names));
    }
  }

  /** Append the predictions that are neither known nor decided, in their order. */
  add(predictions) {
    const { relation } = this.source;
    const added = predictions.filter((prediction) => {
      const seen = this.seen.has(factKey(prediction));
      const isNew = !prediction.known && !seen && (!relation || prediction.relation === relation);
      if (isNew) decidedFacts(prediction).forEach((fact) => this.seen.add(factKey(fact)));
      return isNew;
    });
    this.items.push(...added);
  }

  async answers() {
    const { entity = "", head = "", relation = "", tail = "", min } = this.source;
    const query = {
      head: entity || head,
      relation: entity ? "" : relation,
      tail,
      k: 100,
      among: "all",
      known: "hide",
      min,
    };
    return question.predict(query, { signal: this.signal });
  }

  /** The next entities of the walk, which were not visited before. */
  async step() {
    const walk = this.walk;
    if (!walk.started) {
      walk.started = true;
      walk.frontier = await this.seeds();
    }
    while (walk.frontier.length < ENTITIES && walk.unexpanded.length) {
      const name = walk.unexpanded.shift();
      const neighbourhood = await api.get(
        "v1/neighbourhood",
        { name, limit: 40, ...runs.runParameter() },
        { signal: this.signal },
      );
      walk.frontier.push(...neighbourhood.nodes.map((node) => node.name));
      walk.frontier = [...new Set(walk.frontier)].filter((entity) => !walk.visited.has(entity));
    }
    const names = walk.frontier.splice(0, ENTITIES);
    names.forEach((name) => walk.visited.add(name));
    walk.unexpanded.push(...names);
    return names;
  }

  /** The start of a walk: the entities with the most facts, which an empty search returns. */
  async seeds() {
    const { entities } = await api.get(
      "v1/search",
      { k: 20, ...runs.runParameter() },
      { signal: this.signal },
    );
    return entities.map((entity) => entity.name);
  }

  async missing(names) {
    const questions = names.map((entity) => ({
      ask: "missing",
      entity,
      k: SUGGESTIONS,
      min_probability: this.source.min,
      ...runs.runParameter(),
    }));
    const { answers } = await api.post("v1/batch", { questions }, { signal: this.signal });
    const predictions = answers.flatMap((answer) => answer.predictions ?? []);
    return predictions.sort((a, b) => rankValue(b) - rankValue(a));
  }
}

/** The order of missing facts on the server: by probability, or by score without probabilities. */
const rankValue = (prediction) => shownProbability(prediction) ?? prediction.score ?? -Infinity;

/** The keys of all decided facts. */
export async function allDecidedKeys(signal) {
  const keys = new Set();
  for (let offset = 0; ;) {
    const answer = await api.get(
      "v1/reviews",
      { offset, limit: PAGE, ...runs.runParameter() },
      { signal },
    );
    answer.reviews.forEach((review) => keys.add(factKey(review)));
    offset += answer.reviews.length;
    if (!answer.reviews.length || offset >= answer.total) return keys;
  }
}
