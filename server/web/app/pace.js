// Draws as often as the screen does, but for no more than a third of the time: a long answer takes long to draw.
const FRAME = 20;

// A function that asks for `draw` to be called soon.
export function paced(draw) {
  let isBusy = false;
  let isWanted = false;
  const begin = () => {
    isBusy = true;
    isWanted = false;
    requestAnimationFrame(() => {
      const began = performance.now();
      draw();
      // What was changed has been drawn before the next frame.
      requestAnimationFrame(() => {
        setTimeout(end, Math.max(0, 2 * (performance.now() - began - FRAME)));
      });
    });
  };
  const end = () => {
    isBusy = false;
    if (isWanted) begin();
  };
  return () => {
    isWanted = true;
    if (!isBusy) begin();
  };
}
