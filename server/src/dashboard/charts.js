// What happened over time, drawn by uPlot; and the same as tables, for who does not see or want pictures.

import { bytes, count, duration, percent, rate } from "./words.js";

const NAMES = { hour: "the last hour", day: "the last day", month: "the last thirty days", year: "the last year" };

// `draws`: what is drawn, in this order; `tells`: what the readout and the table say.
const CHARTS = [
  {
    id: "asked",
    title: "Hits and misses",
    unit: "asked",
    says: count,
    tells: [
      { name: "Hits", colour: "--hit", of: (s) => s.hits },
      { name: "Misses", colour: "--miss", of: (s) => s.misses },
      { name: "Hit rate", colour: "--ink", of: (s) => s.hits.map((hits, i) => rate(hits, s.misses[i])), says: percent },
    ],
    // Misses stand on the hits: the bar of both, before it the bar of the hits, before that the rate.
    draws: [
      { colour: "--miss", bars: true, of: (s) => s.hits.map((hits, i) => hits + s.misses[i]) },
      { colour: "--hit", bars: true, of: (s) => s.hits },
      { colour: "--ink", share: true, of: (s) => s.hits.map((hits, i) => rate(hits, s.misses[i])) },
    ],
  },
  {
    id: "bytes",
    title: "Bytes",
    unit: "bytes",
    says: bytes,
    tells: [
      { name: "Served", colour: "--hit", of: (s) => s.served_bytes },
      { name: "Uploaded", colour: "--miss", of: (s) => s.uploaded_bytes },
    ],
  },
  {
    id: "time",
    title: "Compiler time",
    unit: "time",
    says: duration,
    tells: [
      { name: "Saved", colour: "--saved", of: (s) => s.saved_ms },
      { name: "Spent", colour: "--miss", of: (s) => s.built_ms },
    ],
  },
  {
    id: "stored",
    title: "Store",
    unit: "bytes",
    says: bytes,
    tells: [{ name: "Taken", colour: "--hit", of: (s) => s.stored_bytes.map((taken) => taken || null) }],
  },
];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const DAY = { month: "short", day: "numeric" };
const STEPS = { hour: CLOCK, day: CLOCK, month: { ...DAY, ...CLOCK }, year: { ...DAY, year: "numeric" } };
const MARKS = { hour: CLOCK, day: CLOCK, month: DAY, year: DAY };

/** A time in words: when a step began, or what stands at the axis. */
const when = (seconds, format) => new Date(seconds * 1000).toLocaleString(undefined, format);

/** What may lie between two marks of the axis, so that they are round numbers of their unit. */
const MARKED = {
  asked: Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat(),
  bytes: Array.from({ length: 52 }, (_, power) => 2 ** power),
  time: [1, 10, 100, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 18e5, 36e5, 72e5, 36e6, 864e5, 1728e5, 864e6, 864e7],
};

/** How uPlot draws one of them. */
function line({ colour, bars, share }) {
  const points = { show: false };
  if (bars) return { fill: css(colour), width: 0, points, paths: uPlot.paths.bars({ size: [0.8, 24], align: 0 }) };
  // A rate with nothing on either side is a point.
  if (share) return { scale: "share", stroke: css(colour), width: 1.5, points: { show: true, size: 3, fill: css(colour) } };
  return { stroke: css(colour), fill: `color-mix(in srgb, ${css(colour)} 14%, transparent)`, width: 2, points };
}

class Chart {
  constructor(spec, root) {
    this.spec = spec;
    this.figure = make("figure", "card");
    this.figure.id = spec.id;
    const caption = make("figcaption");
    this.heading = make("h3", "", spec.title);
    this.readout = make("p", "readout");
    caption.append(this.heading, this.readout);
    this.plot = make("div", "plot");
    this.plot.setAttribute("role", "img");
    this.details = make("details");
    this.details.append(make("summary", "", `${spec.title} in numbers`));
    this.region = make("div", "scroll tall");
    this.region.tabIndex = 0;
    this.region.setAttribute("role", "region");
    this.region.setAttribute("aria-label", `${spec.title} in numbers`);
    this.details.append(this.region);
    this.details.addEventListener("toggle", () => this.tell());
    this.figure.append(caption, this.plot, this.details);
    root.append(this.figure);
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  update(over, ends) {
    const rows = this.spec.tells.map((tell) => tell.of(over.steps));
    const starts = rows[0].map((_, index) => ends - (rows[0].length - index) * over.step_s);
    const same = this.over && this.over.span === over.span;
    Object.assign(this, { over, rows, starts });
    const middles = starts.map((start) => start + over.step_s / 2);
    const drawn = this.spec.draws ? this.spec.draws.map((draw) => draw.of(over.steps)) : rows;
    this.data = [middles, ...drawn];
    if (this.drawing && same) this.drawing.setData(this.data);
    else this.draw();
    this.read(null);
    if (this.details.open) this.tell();
  }

  draw() {
    this.drawing?.destroy();
    if (!this.data || this.plot.clientWidth === 0) return;
    const { spec, over } = this;
    const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false } };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const draws = spec.draws ?? spec.tells;
    this.drawing = new uPlot(
      {
        width: this.plot.clientWidth,
        height: 170,
        padding: [8, 12, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: "time" }, points: { show: !spec.draws } },
        scales: {
          // Half a step on either side: a bar stands around the middle of its step.
          x: { range: (_, first, last) => [first - this.over.step_s / 2, last + this.over.step_s / 2] },
          y: { range: (_, __, most) => [0, most > 0 ? most * 1.08 : 1] },
          share: { range: [0, 108] },
        },
        axes: [
          { ...axis, font, size: 30, space: 72, values: (_, times) => times.map((time) => when(time, MARKS[this.over.span])) },
          { ...axis, font, size: 72, space: 32, incrs: MARKED[spec.unit], values: (_, all) => all.map((value) => (value === 0 ? "0" : spec.says(value))) },
          ...(draws.some((draw) => draw.share) ? [{ ...axis, font, scale: "share", side: 1, size: 48, grid: { show: false }, splits: [0, 50, 100], values: ["0 %", "50 %", "100 %"] }] : []),
        ],
        series: [
          {},
          ...draws.map((draw) => line(draw)),
        ],
        hooks: { setCursor: [(drawing) => this.read(drawing.cursor.idx ?? null)] },
      },
      this.data,
      this.plot,
    );
  }

  resize() {
    const width = this.plot.clientWidth;
    if (width === 0) return;
    if (this.drawing) this.drawing.setSize({ width, height: 170 });
    else this.draw();
  }

  say(index, row) {
    const value = this.rows[row][index];
    const says = this.spec.tells[row].says ?? this.spec.says;
    return value === null || value === undefined ? "–" : says(value);
  }

  /** The sum of the span, or what was at the cursor. */
  read(index) {
    if (!this.over) return;
    const { over, spec } = this;
    const total = spec.tells.map((tell) => {
      const rows = tell.of(Object.fromEntries(Object.entries(over.total).map(([name, value]) => [name, [value]])));
      return rows[0] === null ? "–" : (tell.says ?? spec.says)(rows[0]);
    });
    const said = spec.tells.map((tell, row) => [tell, index === null ? total[row] : this.say(index, row)]);
    this.readout.replaceChildren(
      make("span", "when", index === null ? NAMES[over.span] : when(this.starts[index], STEPS[over.span])),
      ...said.map(([tell, value]) => {
        const item = make("span", "value");
        if (tell.colour) {
          const key = make("span", "key");
          key.style.background = `var(${tell.colour})`;
          item.append(key);
        }
        item.append(`${tell.name} `, make("b", "", value));
        return item;
      }),
    );
    if (index === null) {
      const words = spec.tells.map((tell, row) => `${tell.name} ${total[row]}`).join(", ");
      this.plot.setAttribute("aria-label", `Chart of ${spec.title.toLowerCase()} over ${NAMES[over.span]}: ${words}.`);
    }
  }

  /** The table of the same numbers, without the steps in which nothing was. */
  tell() {
    if (!this.over || !this.details.open) return;
    const table = make("table");
    const head = make("tr");
    head.append(...["From", ...this.spec.tells.map((tell) => tell.name)].map((name, index) => {
      const cell = make("th", index ? "number" : "", name);
      cell.scope = "col";
      return cell;
    }));
    const body = make("tbody");
    for (let index = this.starts.length - 1; index >= 0; index -= 1) {
      if (this.rows.every((row) => !row[index])) continue;
      const line = make("tr");
      const from = make("th", "", when(this.starts[index], STEPS[this.over.span]));
      from.scope = "row";
      line.append(from, ...this.rows.map((_, row) => make("td", "number", this.say(index, row))));
      body.append(line);
    }
    const top = make("thead");
    top.append(head);
    table.append(top, body);
    this.region.replaceChildren(body.rows.length ? table : make("p", "none", `Nothing happened in ${NAMES[this.over.span]}.`));
  }
}

export class Charts {
  constructor(root) {
    this.charts = CHARTS.map((spec) => new Chart(spec, root));
    const again = () => this.charts.forEach((chart) => chart.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }

  update(over) {
    // The server says how long ago things were; what time that was is this computer's business.
    const ends = Math.round(Date.now() / 1000) + over.ends_in_s;
    this.charts.forEach((chart) => chart.update(over, ends - (ends % Math.min(over.step_s, 60))));
  }
}
