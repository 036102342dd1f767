// What this browser keeps between visits. If it may keep nothing, the page's memory does, until it is closed.
class Memory {
  #items = new Map();

  getItem(name) {
    return this.#items.get(name) ?? null;
  }

  setItem(name, value) {
    this.#items.set(name, value);
  }

  removeItem(name) {
    this.#items.delete(name);
  }

  names() {
    return [...this.#items.keys()];
  }
}

function open() {
  try {
    // Where a browser blocks storage, naming it throws.
    return window.localStorage;
  } catch {
    return new Memory();
  }
}

export const kept = open();

// Keep `text` under `name`. False if there is no room for it.
export function keep(name, text) {
  try {
    kept.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}

export const names = () => (kept instanceof Memory ? kept.names() : Object.keys(kept));
