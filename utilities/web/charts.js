// Charts: what uPlot draws, in the page's own colours.
/* global uPlot */

const BITS = 1 / Math.LN2;
const MIDDLE_POINTS = 150;

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const faint = colour => `color-mix(in srgb, ${colour} 40%, transparent)`;
// Opaque, for what lies in front of something else.
const pale = colour => `color-mix(in srgb, ${colour} 45%, ${css('--card')})`;

export const runColour = place => css(place === 0 ? '--accent' : `--run${place}`);

// Numbers as words.

export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  for (const [unit, factor] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (size >= factor) {
      const scaled = value / factor;
      return `${scaled >= 99.95 ? scaled.toFixed(0) : Number(scaled.toFixed(1))}${unit}`;
    }
  }
  return String(Number(value.toPrecision(3)));
}

// With a true minus, and none before a zero.
export function fixed(value, digits) {
  if (value === null || value === undefined) return '–';
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  const whole = Math.max(0, Math.round(seconds));
  const [d, h, m, s] =
    [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

// A length of time in one unit.
export function rough(seconds) {
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

function clock(seconds, wide) {
  const sign = value => String(value).padStart(2, '0');
  const s = Math.round(seconds), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  if (wide >= 2 * 3600) return `${h}:${sign(m)}`;
  return h ? `${h}:${sign(m)}:${sign(s % 60)}` : `${m}:${sign(s % 60)}`;
}

const AXES = {
  step: {name: 'step', words: value => short(value), increments: null},
  time: {
    name: 'time trained', words: (value, wide) => clock(value, wide),
    increments: [0.01, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400,
      21600, 43200, 86400, 172800, 432000, 864000],
  },
  trials: {name: 'trials', words: value => short(value), increments: null},
};

// Data.

// The median of each of so many stretches: a single wild step must not bend it.
export function middle(x, y, most = MIDDLE_POINTS) {
  if (x.length <= most) return [x, y];
  const xs = [], ys = [];
  for (let place = 0; place < most; place++) {
    const start = Math.floor(place * x.length / most), end = Math.floor((place + 1) * x.length / most);
    const part = [];
    for (let i = start; i < end; i++) if (y[i] !== null && x[i] !== null) part.push(y[i]);
    part.sort((a, b) => a - b);
    xs.push(x[(start + end) >> 1]);
    ys.push(part.length ? part[part.length >> 1] : null);
  }
  return [xs, ys];
}

// A table that uPlot can join: numbers of x that ascend, each once.
function table(x, ...columns) {
  const keep = [];
  let last = -Infinity;
  for (let i = 0; i < x.length; i++) {
    if (x[i] !== null && x[i] > last) {
      keep.push(i);
      last = x[i];
    }
  }
  return [x, ...columns].map(column => keep.map(i => column[i]));
}

const above = (least, [x, ...columns]) => {
  const keep = [...x.keys()].filter(i => x[i] > least);
  return [x, ...columns].map(column => keep.map(i => column[i]));
};

// One chart, made anew whenever its series change.

class Chart {
  constructor(place, height) {
    this.place = place;
    this.height = height;
    this.plot = null;
    this.shape = '';
    this.zoomed = false;
    new ResizeObserver(() => this.fit()).observe(place);
    place.addEventListener('dblclick', () => { this.zoomed = false; });
  }

  fit() {
    const width = Math.floor(this.place.clientWidth);
    if (this.plot && width > 50 && width !== this.plot.width) {
      this.plot.setSize({width, height: this.plot.height});
    }
  }

  forget() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.shape = '';
    this.zoomed = false;
  }

  say(text) {
    this.forget();
    this.place.replaceChildren(Object.assign(document.createElement('p'), {className: 'empty soft', textContent: text}));
    this.place.removeAttribute('tabindex');
    this.place.dataset.points = 0;
  }

  // series: what uPlot takes, without x; shape: what the chart was made for.
  show(shape, options, data, label) {
    if (!data[0].length) {
      this.say('nothing yet');
      return;
    }
    this.place.setAttribute('role', 'img');
    this.place.setAttribute('aria-label', label);
    this.place.dataset.points = data[0].length;
    if (shape === this.shape) {
      this.plot.setData(data, !this.zoomed);
      if (this.zoomed) this.plot.redraw(true, true);
      if (this.plot.cursor.left < 0) newest(this.plot);
      return;
    }
    this.forget();
    this.place.replaceChildren();
    this.shape = shape;
    const chart = this;
    this.plot = new uPlot({
      width: Math.max(200, Math.floor(this.place.clientWidth)),
      height: this.height,
      cursor: {
        y: false,
        points: {size: 7},
        dataIdx: (u, s, hovered) => nearest(u, s, hovered),
        drag: {x: true, y: false, setScale: true},
      },
      ...options,
      hooks: {
        ...options.hooks,
        setSelect: [u => { if (u.select.width > 0) chart.zoomed = true; }],
        setCursor: [u => { if (u.cursor.left < 0) newest(u); }],
      },
    }, data, this.place);
    newest(this.plot);
    this.keyboard();
  }

  keyboard() {
    this.place.tabIndex = 0;
    this.place.onkeydown = event => {
      const move = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
      const u = this.plot;
      if (move === undefined || !u) return;
      event.preventDefault();
      const left = u.cursor.left >= 0 ? u.cursor.left : u.over.clientWidth;
      const to = Math.min(u.over.clientWidth, Math.max(0, left + move * u.over.clientWidth / 50));
      u.setCursor({left: to, top: u.over.clientHeight / 2});
    };
  }
}

// The figure of each series that lies nearest: joined series seldom share an x.
function nearest(u, s, hovered) {
  const column = u.data[s];
  if (s === 0 || hovered === null || column[hovered] !== undefined) return hovered;
  const most = Math.max(20, column.length / 20);
  for (let far = 1; far < most; far++) {
    for (const i of [hovered - far, hovered + far]) {
      if (column[i] !== undefined && column[i] !== null) return i;
    }
  }
  return hovered;
}

// Without a cursor the legend has the newest figure of each series.
function newest(u) {
  const last = column => {
    let i = column.length - 1;
    while (i >= 0 && (column[i] === null || column[i] === undefined)) i--;
    return i < 0 ? null : i;
  };
  u.setLegend({idxs: u.data.map(last)}, false);
}

function axes(by, words, size) {
  const axis = AXES[by];
  const common = {stroke: css('--soft'), font: '12px system-ui, sans-serif', ticks: {show: false}};
  return [
    {
      ...common,
      grid: {show: false},
      space: 60,
      size: 30,
      values: (u, splits) => splits.map(v => v === null ? '' : axis.words(v, u.scales.x.max - u.scales.x.min)),
      ...(axis.increments ? {incrs: axis.increments} : {}),
    },
    {...common, grid: {stroke: css('--grid'), width: 1}, size, space: 34, values: (u, splits) => splits.map(words)},
  ];
}

const xSeries = by => ({label: AXES[by].name, value: (u, v) => v === null ? '–' : AXES[by].words(v, 0)});
const valued = digits => (u, v) => fixed(v, digits);

// The loss of one run or several.

export class LossChart {
  constructor(place) {
    this.chart = new Chart(place, place.classList.contains('tall') && innerWidth <= 480 ? 300 : 380);
    this.levels = [];
    this.factor = 1;
  }

  forget() { this.chart.forget(); }

  // runs: {name, place, middle, validation}; the first one, the page's own, has its loss, too.
  show(runs, {unit, by, log, levels}) {
    this.levels = levels;
    this.factor = unit === 'bits' ? BITS : 1;
    const scaled = column => column.map(v => v === null ? null : v * this.factor);
    const tables = [], series = [xSeries(by)], roles = [null];
    for (const run of runs) {
      const colour = runColour(run.place);
      const several = runs.length > 1 ? `${run.name} ` : '';
      if (run.place === 0) {
        tables.push(table(run.loss[by], scaled(run.loss.nats)));
        series.push({label: `${several}loss of a step`, stroke: faint(colour), width: 1, points: {show: false}, value: valued(3)});
        roles.push('raw');
      }
      tables.push(table(run.middle[by], scaled(run.middle.nats)));
      series.push({label: `${several}median`, stroke: colour, width: run.place === 0 ? 2 : 1.5, points: {show: false}, value: valued(3)});
      roles.push('middle');
      const mark = run.place === 0 ? css('--warm') : colour;
      tables.push(table(run.validation[by], scaled(run.validation.nats)));
      series.push({
        label: `${several}validation`, stroke: mark, width: 1.5, value: valued(3), spanGaps: true,
        dash: run.place === 0 ? undefined : [5, 4],
        points: {show: (u, s) => u.data[s].filter(v => v !== undefined && v !== null).length <= 80, size: run.place === 0 ? 6 : 5, fill: mark},
      });
      roles.push('points');
    }
    this.roles = roles;
    const usable = tables.map(t => log ? above(0, t) : t);
    // 2: a gap reaches over what only the other series have.
    const data = uPlot.join(usable, usable.map(t => t.map(() => 2)));
    if (data[0].length === 0) data.length = 1;
    const shape = JSON.stringify([runs.map(r => [r.name, r.place]), unit, by, log]);
    this.chart.show(shape, this.options(series, by, log), data, this.words(runs, unit));
  }

  options(series, by, log) {
    return {
      series,
      scales: {
        x: {time: false, distr: log ? 3 : 1},
        y: {range: u => this.range(u)},
      },
      axes: axes(by, v => String(Number(v.toFixed(3))), 44),
      hooks: {draw: [u => this.drawLevels(u)]},
    };
  }

  // From what is drawn strongly: one wild step must not flatten all others.
  range(u) {
    const [start, end] = u.series[0].idxs || [0, u.data[0].length - 1];
    let low = Infinity, high = -Infinity;
    u.data.forEach((column, s) => {
      if (s === 0 || this.roles[s] === 'raw') return;
      for (let i = start ?? 0; i <= (end ?? column.length - 1); i++) {
        const v = column[i];
        if (v === null || v === undefined) continue;
        low = Math.min(low, v);
        high = Math.max(high, v);
      }
    });
    if (low > high) return [0, 1];
    if (!this.chart.zoomed) {
      for (const level of this.levels) {
        low = Math.min(low, level.nats * this.factor);
        high = Math.max(high, level.nats * this.factor);
      }
    }
    const margin = 0.04 * (high - low) || 0.05;
    return [low - margin, high + margin];
  }

  drawLevels(u) {
    const {ctx, bbox} = u, ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.strokeStyle = ctx.fillStyle = css('--soft');
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 4 * ratio]);
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = 'right';
    for (const level of this.levels) {
      const y = Math.round(u.valToPos(level.nats * this.factor, 'y', true));
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.textBaseline = y - bbox.top < 18 * ratio ? 'top' : 'bottom';
      ctx.fillText(level.name, bbox.left + bbox.width - 4 * ratio, y + (ctx.textBaseline === 'top' ? 3 : -2) * ratio);
    }
    ctx.restore();
  }

  words(runs, unit) {
    return runs.map(run => {
      const known = run.validation.nats.filter(v => v !== null);
      if (!known.length) return `${run.name}: no validation loss yet`;
      const [first, last] = [known[0], known[known.length - 1]].map(v => (v * this.factor).toFixed(3));
      return `${run.name}: validation loss from ${first} to ${last} ${unit} per character`;
    }).join('; ');
  }
}

// Figures of steps.

export class StepsChart {
  // series: {label, keys, colour, fill, digits}; keys of one series are added up.
  // wild: the share of the highest figures that need not fit.
  constructor(place, series, {least = null, words = short, wild = 0} = {}) {
    this.chart = new Chart(place, 190);
    this.wanted = series;
    this.least = least;
    this.words = words;
    this.wild = wild;
  }

  forget() { this.chart.forget(); }

  show(steps, by) {
    const columns = this.wanted.map(({keys}) => steps.step.map((_, i) => {
      const values = keys.map(key => steps[key][i]);
      return values.includes(null) ? null : values.reduce((a, b) => a + b, 0);
    }));
    const data = table(steps[by], ...columns);
    if (data[0].length > 150) {
      const thin = data.slice(1).map(column => middle(data[0], column));
      data.splice(0, data.length, thin[0][0], ...thin.map(t => t[1]));
    }
    if (data.slice(1).every(column => column.every(v => v === null))) data[0] = [];
    const series = [xSeries(by), ...this.wanted.map(({label, colour, fill, shown, digits}, i) => ({
      label, stroke: css(colour), width: 1.5, points: {show: false},
      fill: fill ? pale(css(colour)) : undefined,
      value: (u, v, s, idx) => shown ? valued(digits)(u, this.part(u, i, idx)) : v === null || v === undefined ? '–' : this.words(v),
    }))];
    const last = columns[0].filter(v => v !== null).pop();
    this.chart.show(by, {
      series,
      scales: {x: {time: false}, y: {range: u => this.range(u)}},
      axes: axes(by, v => short(v), 44),
    }, data, `${this.wanted[0].label}, the newest: ${last === undefined ? 'none' : short(last)}`);
  }

  // Of stacked series: what this one adds to the one below, which is the next one.
  part(u, i, idx) {
    if (idx === null) return null;
    const own = u.data[i + 1][idx], below = i + 2 < u.data.length ? u.data[i + 2][idx] : 0;
    return own === null || own === undefined ? null : own - below;
  }

  range(u) {
    const [start, end] = u.series[0].idxs || [];
    const values = u.data.slice(1).flatMap(column => column.slice(start ?? 0, (end ?? column.length - 1) + 1))
      .filter(v => v !== null && v !== undefined).sort((a, b) => a - b);
    if (!values.length) return [0, 1];
    let low = values[0], high = values[values.length - 1 - Math.floor(values.length * this.wild)];
    if (this.least !== null) low = Math.min(low, this.least);
    const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
    return [low === this.least ? low : low - margin, high + margin];
  }
}
