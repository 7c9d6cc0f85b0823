// The page: what the server tells, put where it belongs. Whatever text comes from
// elsewhere (names, texts, samples) becomes text, never markup.
import {LossChart, StepsChart, fixed, rough, short, span} from './charts.js';

const $ = id => document.getElementById(id);
const BITS = 1 / Math.LN2;
const MOST_OVERLAYS = 5;
const OVERLAY_SECONDS = 15, RUNS_SECONDS = 10, RETRY_SECONDS = 3;

const state = {
  run: null, newest: null, runs: [],
  unit: 'nats', by: 'step', log: false, baselines: true,
  about: null, head: null, levels: [], clients: null, samples: [], events: [],
  loss: null, middle: null, validation: null, steps: null,
  overlays: new Map(), // number -> picture
  follow: true, // the slider stays at the newest sample
};
const IDLE = ['ended', 'not running'];
let source = null, retry = null;

// Small helpers.

function make(tag, text = '', className = '') {
  const element = document.createElement(tag);
  if (text !== '') element.textContent = text;
  if (className) element.className = className;
  return element;
}

const number = value => value === null || value === undefined ? '–' : value.toLocaleString('en');
const loss = nats => nats === null || nats === undefined ? '–' : (state.unit === 'bits' ? nats * BITS : nats).toFixed(3);
const percent = share => share === null || share === undefined ? '–' : `${(100 * share).toFixed(1)} %`;
const ago = moment => `${rough(Date.now() / 1000 - moment)} ago`;

function said(key, element, content) {
  // Nothing is touched that stays as it is: a selection or a screen reader stays there.
  const text = JSON.stringify(content);
  if (said.before[key] === text) return false;
  said.before[key] = text;
  return Boolean(element);
}
said.before = {};

// Figures.

function showFigures() {
  const head = state.head;
  if (!head) return;
  const other = state.unit === 'bits' ? 'nats' : 'bits';
  const second = nats => nats === null || nats === undefined ? '' : `${(state.unit === 'bits' ? nats : nats * BITS).toFixed(3)} ${other}`;
  const point = p => p ? p.nats : null;
  const best = head.best && head.validation && head.best.step !== head.validation.step
    ? `best ${loss(head.best.nats)} at ${number(head.best.step)}` : second(point(head.validation));
  const clients = state.clients ? state.clients.clients.filter(c => c.here).length : 0;
  const rows = [
    ['Step', number(head.step), [
      head.endStep ? `of ${number(head.endStep)}` : '',
      head.asked ? `${Number(head.asked.toPrecision(2))} s${head.endStep ? '' : ' of trials'} each` : '',
    ].filter(Boolean).join(' · ')],
    [`Validation, ${state.unit}`, loss(point(head.validation)), best],
    [`Loss, ${state.unit}`, loss(point(head.loss)), second(point(head.loss))],
    ['Trials per second', short(head.rate), `${head.trialsAreRough ? 'about ' : ''}${short(head.trials)} in all`],
    ['Trained', span(head.seconds), head.endsAt ? `ends in about ${rough(head.endsAt - Date.now() / 1000)}`
      : head.lastActive ? `last step ${ago(head.lastActive)}` : ''],
    ['Clients', number(clients), head.quality === null ? '' : `gradient ${fixed(head.quality, 3)}`],
  ];
  if (!said('figures', $('figures'), rows)) return;
  $('figures').replaceChildren(...rows.map(([name, value, below]) => {
    const box = make('div'), figure = make('dd', value);
    figure.append(make('small', below));
    box.append(make('dt', name), figure);
    return box;
  }));
}

function showStatus() {
  const words = state.lost ? 'not connected, trying again' : state.head ? state.head.state : 'connecting';
  if (!said('status', $('status'), words)) return;
  $('status').textContent = words;
  $('status').dataset.state = state.lost ? 'lost' : words;
}

function showAbout() {
  const about = state.about;
  if (!about) return;
  const config = about.config;
  const model = `${config.modelType} ${config.nLayers} × ${config.hiddenSize}`;
  $('about').textContent = `${about.text} · ${model} · version ${about.program}`;
  document.title = `Run ${about.run}: ${about.text}`;
  $('files').hidden = false;
  for (const link of document.querySelectorAll('#files a')) link.href = `${link.dataset.route}?run=${about.run}`;
}

// Charts.

const lossChart = new LossChart($('loss'));
const stepCharts = [
  new StepsChart($('rate'), [{label: 'trials/s', keys: ['rate'], colour: '--accent', fill: true}], {least: 0}),
  new StepsChart($('time'), [
    {label: 'waiting', keys: ['trialSeconds', 'updateSeconds', 'waitingSeconds'], colour: '--soft', fill: true, shown: true, digits: 3},
    {label: 'update', keys: ['trialSeconds', 'updateSeconds'], colour: '--warm', fill: true, shown: true, digits: 3},
    {label: 'trials', keys: ['trialSeconds'], colour: '--accent', fill: true, shown: true, digits: 3},
  ], {least: 0, wild: 0.01}), // a first step may last ten times as long
  new StepsChart($('quality'), [{label: 'cosine', keys: ['quality'], colour: '--good'}], {least: 0, words: v => fixed(v, 3)}),
];

function showLoss() {
  if (!state.loss) return;
  const own = {name: `run ${state.run}`, place: 0, loss: state.loss, middle: state.middle, validation: state.validation};
  const others = [...state.overlays].map(([run, picture], i) => ({
    name: `run ${run}`, place: i + 1, middle: picture.middle, validation: picture.validation,
  }));
  lossChart.show([own, ...others], {
    unit: state.unit, by: state.by, log: state.log, levels: state.baselines ? state.levels : [],
  });
  const levels = state.levels.map(level => `${level.name} ${loss(level.nats)}`).join(' · ');
  $('levels').textContent = levels ? `${state.unit} per character: ${levels}` : `${state.unit} per character`;
}

function showSteps() {
  if (state.steps) stepCharts.forEach(chart => chart.show(state.steps, state.by));
}

function showCharts() {
  showLoss();
  showSteps();
}

function redrawAll() {
  lossChart.forget();
  stepCharts.forEach(chart => chart.forget());
  showCharts();
}

// Clients.

function clientRow(client) {
  const row = make('tr', '', client.here ? '' : 'gone');
  const name = make('th');
  name.scope = 'row';
  const odd = client.here && client.state && client.state !== 'working';
  const dot = make('span', '', `dot${client.here ? odd ? ' odd' : '' : ' gone'}`);
  dot.setAttribute('aria-hidden', 'true');
  const below = client.here ? [client.state, client.machine].filter(Boolean).join(' · ') : 'not here';
  name.append(dot, make('span', client.name), make('small', below));
  const late = client.lateOf ? `${Math.round(100 * client.late / client.lateOf)} %` : '–';
  row.append(name, ...[
    client.rate === null || client.rate === undefined ? '–' : short(client.rate),
    percent(client.shareOfTrials), percent(client.shareOfGradient), late,
  ].map(text => make('td', text)));
  return row;
}

function showClients() {
  const {clients, before, more} = state.clients;
  if (!said('clients', $('clients'), clients)) return;
  $('clients-note').textContent = before ? `share of the trials and of the gradient before step ${number(before)}` : '';
  if (!clients.length) {
    $('clients').replaceChildren(make('p', 'nobody yet', 'soft'));
    return;
  }
  const table = make('table'), top = make('tr');
  for (const title of ['client', 'trials/s', 'share', 'gradient', 'late']) {
    const cell = make('th', title);
    cell.scope = 'col';
    top.append(cell);
  }
  const head = make('thead'), body = make('tbody');
  head.append(top);
  body.append(...clients.map(clientRow));
  table.append(head, body);
  if (more) table.append(make('caption', `and ${more} more`));
  $('clients').replaceChildren(table);
}

function showJoin() {
  const lines = state.head && !IDLE.includes(state.head.state) ? state.head.join : [];
  $('join').hidden = !lines.length;
  if (!said('join', $('join'), lines)) return;
  $('join-lines').replaceChildren(...lines.map(line => {
    const item = make('li'), code = make('code', line), button = make('button', 'Copy');
    button.type = 'button';
    code.tabIndex = 0;
    button.setAttribute('aria-label', `Copy: ${line}`);
    button.addEventListener('click', () => copy(code, button));
    item.append(code, button);
    return item;
  }));
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch { // only a page of this machine, or an encrypted one, has a clipboard
    getSelection().selectAllChildren(code);
    document.execCommand('copy');
  }
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

// Samples, events, keys.

function showSample() {
  const slider = $('sample-slider'), samples = state.samples;
  slider.disabled = samples.length < 2;
  slider.max = Math.max(0, samples.length - 1);
  if (state.follow) slider.value = slider.max;
  const sample = samples[Number(slider.value)];
  const words = sample ? `step ${number(sample.step)}` : '';
  slider.setAttribute('aria-valuetext', words);
  $('sample-step').textContent = words;
  if (said('sample', $('sample'), sample ?? null)) {
    $('sample').textContent = sample ? sample.text : 'A sample comes with each checkpoint.';
  }
}

const SIGNS = {join: '+', leave: '−', checkpoint: '✓', audit: '!', warning: '!', session: '▸'};

function showEvents() {
  if (!said('events', $('events'), state.events)) return;
  const items = state.events.slice().reverse().map(event => {
    const item = make('li', '', event.warning ? 'warning' : '');
    const moment = new Date(event.time * 1000);
    const time = make('time', moment.toLocaleTimeString('en-GB'), 'soft');
    time.dateTime = moment.toISOString();
    time.title = `${moment.toLocaleString()}, step ${event.step}`;
    const sign = make('span', SIGNS[event.kind] ?? '·', 'sign');
    sign.setAttribute('aria-hidden', 'true');
    item.append(time, sign, make('span', event.text));
    return item;
  });
  $('events').replaceChildren(...(items.length ? items : [make('li', 'none recorded', 'soft none')]));
}

function keysTable(keys, columns, caption) {
  const table = make('table'), head = make('thead'), body = make('tbody'), top = make('tr');
  if (caption) table.append(make('caption', caption));
  for (const [i, title] of ['key', ...columns.map(c => c.title)].entries()) {
    const cell = make('th');
    cell.scope = 'col';
    if (i && columns.length > 1) cell.append(make('span', '', `key k${i - 1}`));
    cell.append(title);
    top.append(cell);
  }
  head.append(top);
  for (const key of keys) {
    const values = columns.map(c => c.config[key]);
    const row = make('tr', '', new Set(values.map(v => JSON.stringify(v))).size > 1 ? 'differs' : '');
    const name = make('th', key);
    name.scope = 'row';
    row.append(name, ...values.map(v => make('td', v === undefined ? '–' : String(v))));
    body.append(row);
  }
  table.append(head, body);
  return table;
}

function showKeys() {
  if (!state.about) return;
  const own = {title: `run ${state.run}`, config: state.about.config, text: state.about.textSha256};
  const others = [...state.overlays].map(([run, p]) => ({title: `run ${run}`, config: p.config, text: p.textSha256}));
  const columns = [own, ...others];
  const keys = Object.keys(own.config);
  if (said('keys', $('keys'), columns)) $('keys').replaceChildren(keysTable(keys, columns));
  const differ = keys.filter(key => new Set(columns.map(c => JSON.stringify(c.config[key]))).size > 1);
  $('differences').hidden = !others.length;
  if (!others.length || !said('differences', $('differences'), columns)) return;
  const sameText = columns.every(c => c.text === own.text);
  const words = (differ.length ? 'Keys that differ' : 'No key differs') +
    (sameText ? '' : '. These runs have different texts: their losses do not compare');
  $('differences').replaceChildren(differ.length ? keysTable(differ, columns, words) : make('p', words, 'soft'));
}

// Runs.

const runWords = r => `${r.run} · ${r.text} · ${r.model} · step ${number(r.step)}`;

function showRuns() {
  const list = state.runs.map(r => [r.run, runWords(r)]);
  if (!said('runs', $('run'), [list, state.run])) return;
  $('run').replaceChildren(...list.map(([run, words]) => {
    const option = make('option', run === state.run ? String(run) : words);
    option.value = run;
    option.selected = run === state.run;
    return option;
  }));
  const others = state.runs.filter(r => r.run !== state.run);
  $('others').hidden = !others.length;
  $('overlays').replaceChildren(...others.map(r => {
    const label = make('label', '', 'check'), box = make('input');
    box.type = 'checkbox';
    box.value = r.run;
    box.checked = state.overlays.has(r.run);
    box.addEventListener('change', () => overlay(r.run, box));
    const words = make('span', runWords(r));
    words.title = runWords(r);
    label.append(box, words);
    return label;
  }));
}

async function overlay(run, box) {
  if (!box.checked) {
    state.overlays.delete(run);
  } else if (state.overlays.size >= MOST_OVERLAYS) {
    box.checked = false;
    return;
  } else {
    await fetchOverlay(run);
  }
  keepAddress();
  showLoss();
  showKeys();
}

async function fetchJson(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

async function fetchOverlay(run) {
  try {
    state.overlays.set(run, await fetchJson(`/picture?run=${run}`));
  } catch (error) {
    trouble(error instanceof TypeError ? '' : error.message); // TypeError: no connection
  }
}

async function refreshOverlays() {
  if (document.hidden || !state.overlays.size || state.lost) return;
  await Promise.all([...state.overlays.keys()].map(fetchOverlay));
  showLoss();
}

async function refreshRuns() {
  let answer;
  try {
    answer = await fetchJson('/runs');
  } catch {
    return; // the stream tells that there is no connection
  }
  const before = state.newest;
  state.runs = answer.runs;
  state.newest = answer.newest;
  // Who looks at the newest run, which has ended, gets the one that has begun since.
  const ended = state.run === before && state.head && IDLE.includes(state.head.state);
  if (state.newest !== before && state.newest !== null && (state.run === null || ended)) choose(state.newest);
  if (state.run === null) trouble('There is no run yet.');
  showRuns();
}

// The address says what is shown: it can be kept and sent.

function keepAddress() {
  const words = new URLSearchParams();
  if (state.run !== null && state.run !== state.newest) words.set('run', state.run);
  if (state.overlays.size) words.set('with', [...state.overlays.keys()].join(','));
  if (state.unit !== 'nats') words.set('unit', state.unit);
  if (state.by !== 'step') words.set('by', state.by);
  if (state.log) words.set('log', '1');
  history.replaceState(null, '', `#${words}`);
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const whole = text => /^\d{1,10}$/.test(text ?? '') ? Number(text) : null;
  if (words.get('unit') === 'bits') state.unit = 'bits';
  if (['time', 'trials'].includes(words.get('by'))) state.by = words.get('by');
  state.log = words.get('log') === '1';
  document.querySelectorAll('input[name=unit]').forEach(i => { i.checked = i.value === state.unit; });
  document.querySelectorAll('input[name=by]').forEach(i => { i.checked = i.value === state.by; });
  $('log').checked = state.log;
  const runs = (words.get('with') ?? '').split(',').map(whole).filter(r => r !== null);
  return [whole(words.get('run')), runs.slice(0, MOST_OVERLAYS)];
}

function choose(run) {
  state.run = run;
  state.overlays.delete(run);
  for (const key of ['about', 'head', 'clients', 'loss', 'validation', 'steps']) state[key] = null;
  state.levels = [];
  state.samples = [];
  state.events = [];
  state.follow = true;
  said.before = {};
  lossChart.forget();
  stepCharts.forEach(chart => chart.forget());
  trouble('');
  keepAddress();
  showRuns();
  connect();
}

// What the server tells.

function trouble(text) {
  $('trouble').hidden = !text;
  $('trouble').textContent = text;
}

const append = (all, more) => {
  for (const key of Object.keys(all)) for (const value of more[key]) all[key].push(value);
};

function takeCurves(news) {
  state.middle = news.middle;
  if (news.whole) {
    Object.assign(state, {loss: news.loss, steps: news.steps, validation: news.validation});
  } else if (state.loss) {
    append(state.loss, news.loss);
    append(state.steps, news.steps);
    if (news.validation) state.validation = news.validation;
  }
  showCharts();
}

const TAKE = {
  run: news => { state.about = news; showAbout(); showKeys(); },
  head: news => { state.head = news; trouble(''); showStatus(); showFigures(); showJoin(); },
  levels: news => { state.levels = news.levels; showLoss(); },
  clients: news => { state.clients = news; showClients(); showFigures(); },
  samples: news => { state.samples = news.samples; showSample(); },
  events: news => { state.events = news.events; showEvents(); },
  curves: takeCurves,
  trouble: news => trouble(news.text),
};

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
  if (state.run === null || document.hidden) return;
  const mine = source = new EventSource(`/live?run=${state.run}`);
  mine.onopen = () => { state.lost = false; showStatus(); };
  mine.onerror = () => {
    if (mine !== source) return;
    state.lost = true;
    showStatus();
    // A browser comes again by itself after a broken connection, not after a refusal.
    if (mine.readyState !== EventSource.CLOSED) return;
    retry = setTimeout(connect, 1000 * RETRY_SECONDS);
    fetchJson(`/picture?run=${state.run}`).catch(error => {
      if (!(error instanceof TypeError)) trouble(error.message);
    });
  };
  for (const [name, take] of Object.entries(TAKE)) {
    mine.addEventListener(name, event => { if (mine === source) take(JSON.parse(event.data)); });
  }
}

// What somebody does.

document.querySelectorAll('input[name=unit], input[name=by]').forEach(input => {
  input.addEventListener('change', () => {
    state[input.name] = input.value;
    keepAddress();
    showFigures();
    showCharts();
  });
});
$('log').addEventListener('change', event => { state.log = event.target.checked; keepAddress(); showLoss(); });
$('baselines').addEventListener('change', event => { state.baselines = event.target.checked; showLoss(); });
$('run').addEventListener('change', event => choose(Number(event.target.value)));
$('sample-slider').addEventListener('input', event => {
  state.follow = Number(event.target.value) === Number(event.target.max);
  showSample();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawAll);
// Six connections to one server are all that a browser allows, over all its tabs.
document.addEventListener('visibilitychange', connect);
addEventListener('hashchange', () => location.reload()); // somebody has typed another address

async function begin() {
  const [run, overlays] = readAddress();
  if (run !== null) choose(run);
  await refreshRuns();
  await Promise.all(overlays.filter(r => r !== state.run).map(fetchOverlay));
  said.before.runs = '';
  showRuns();
  showLoss();
  showKeys();
  $('others').open = overlays.length > 0;
  keepAddress();
  setInterval(refreshRuns, 1000 * RUNS_SECONDS);
  setInterval(refreshOverlays, 1000 * OVERLAY_SECONDS);
  setInterval(showFigures, 1000);
}

begin();
