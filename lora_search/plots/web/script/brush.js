// Dragging over a figure: over points it selects what lies inside, over an axis it filters by what lies along it.
// A pointer only: on a touch screen a drag scrolls, and the same is reached by the table and by the filters.
const DRAG_FROM = 6;

function bindBrush(plate) {
  const root = plate.root;
  let start = null, shape = null;
  const end = () => {
    start = null;
    plate.dragging = false;
    shape?.remove();
    shape = null;
  };
  root.addEventListener("pointerdown", (event) => {
    if (!plate.brush || event.button !== 0 || event.pointerType === "touch") return;
    start = plate.spot(event);
  });
  root.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = plate.spot(event);
    if (!plate.dragging && Math.hypot(x - start[0], y - start[1]) < DRAG_FROM) return;
    if (!plate.dragging) {
      plate.dragging = true;
      plate.leave();
      root.setPointerCapture(event.pointerId);
      root.append((shape = s("rect", { class: "brush", rx: 2 })));
    }
    for (const [name, value] of Object.entries(plate.brush.shape(start, [x, y]))) shape.setAttribute(name, Math.max(0, value));
  });
  root.addEventListener("pointerup", (event) => {
    if (plate.dragging) {
      plate.brushed = true; // the click that follows is the end of the drag
      setTimeout(() => (plate.brushed = false));
      const from = start, to = plate.spot(event);
      end();
      plate.brush.done(from, to, event.shiftKey || event.ctrlKey || event.metaKey);
    } else end();
  });
  root.addEventListener("pointercancel", end);
}

const corners = ([x0, y0], [x1, y1]) => ({ x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) });

// A rectangle that selects the adapters whose points it holds.
const selectingBrush = (plate) => ({
  shape: corners,
  done(from, to, adding) {
    const { x, y, width, height } = corners(from, to);
    const inside = plate.points.filter((point) => point.adapter && point.x >= x && point.x <= x + width && point.y >= y && point.y <= y + height);
    if (!adding) view.selected.clear();
    for (const point of inside) view.selected.add(point.adapter.id);
    refresh();
  },
});

// A stretch of the nearest of several upright axes: {x, name, place(row), values}.
const axisBrush = (plate, axes) => {
  const nearest = (x) => axes.reduce((best, axis) => (Math.abs(axis.x - x) < Math.abs(best.x - x) ? axis : best));
  return {
    shape: (from, to) => ({ ...corners([0, Math.max(plate.top - 6, from[1])], [0, Math.min(plate.bottom_edge + 6, to[1])]), x: nearest(from[0]).x - 7, width: 14 }),
    done(from, to) {
      const axis = nearest(from[0]), low = Math.min(from[1], to[1]), high = Math.max(from[1], to[1]);
      brushAxis(axis, (value) => axis.at(value) >= low - 4 && axis.at(value) <= high + 4);
    },
  };
};

function brushAxis(axis, inside) {
  const kept = axis.values.filter(inside);
  if (FILTERS.includes(axis.name)) view.filters[axis.name] = kept.length === axis.values.length ? [] : kept.map(String);
  else if (!kept.length || kept.length === axis.values.length) delete view.ranges[axis.name];
  else view.ranges[axis.name] = [kept.reduce((one, other) => Math.min(one, other)), kept.reduce((one, other) => Math.max(one, other))];
  refresh();
}
