// Which words of several answers are not in all of them. Pure.

const plain = (word) => word.toLocaleLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");

// `text` as [piece, isMarked] pairs: a word is marked unless each of `others` has it as often.
export function marked(text, others) {
  const pieces = text.split(/(\s+)/).filter(Boolean);
  if (!others.length) return [[text, false]];
  const counts = others.map((other) => {
    const found = new Map();
    for (const word of other.split(/\s+/).map(plain)) found.set(word, (found.get(word) ?? 0) + 1);
    return found;
  });
  const joined = [];
  for (const piece of pieces) {
    const word = plain(piece);
    let isMarked = false;
    if (word) {
      for (const found of counts) {
        const left = found.get(word) ?? 0;
        if (left) found.set(word, left - 1);
        else isMarked = true;
      }
    }
    const last = joined[joined.length - 1];
    // A space between two marked words is theirs.
    if (last && !/\S/.test(piece)) last[2] = piece;
    else if (last && last[1] === isMarked) last[0] += (last[2] ?? "") + piece, last[2] = "";
    else joined.push([piece, isMarked, ""]);
  }
  const flat = [];
  for (const [piece, isMarked, space] of joined) {
    flat.push([piece, isMarked]);
    if (space) flat.push([space, false]);
  }
  return flat;
}
