// Plays a recording: the server draws its frames, this shows them in time.
// Text is only ever put in as text.
'use strict';
(() => {
  const longest = 2; // seconds that a pause lasts at most
  let stop = () => {};

  function start() {
    stop();
    const box = document.getElementById('player');
    if (!box || box.dataset.on) return;
    box.dataset.on = 'yes';
    box.hidden = false;
    const is = (name) => box.querySelector(`[data-is="${name}"]`);
    const does = (name) => box.querySelector(`[data-do="${name}"]`);
    const goesOn = box.hasAttribute('data-goes-on');
    const screen = is('screen'), clock = is('time'), seek = does('seek'), play = does('play'), speed = does('speed');
    const frames = []; // with .p: when each is played, pauses cut
    const cut = new AbortController();
    let rows = [], size = 0, next = 0, at = 0, last = 0, playing = false, live = goesOn, over = false, timer = 0;

    const length = () => (frames.length ? frames[frames.length - 1].p : 0);
    const note = (text) => { is('note').textContent = text; is('note').hidden = !text; };

    function paint(y) {
      while (screen.children.length <= y) screen.append(document.createElement('div'));
      screen.children[y].replaceChildren(...(rows[y] || []).map(([text, style]) => {
        const span = document.createElement('span');
        span.textContent = text;
        span.className = style;
        return span;
      }));
    }

    // Show the frames up to the time at.
    function show() {
      const dirty = new Set();
      if (next > 0 && frames[next - 1].p > at) { // it went back
        for (let y = 0; y < Math.max(size, rows.length); y++) dirty.add(y);
        next = 0;
        rows = [];
        size = 0;
      }
      for (; next < frames.length && frames[next].p <= at; next++) {
        const f = frames[next];
        for (const [y, row] of Object.entries(f.r || {})) { rows[y] = row; dirty.add(Number(y)); }
        if (f.h) { size = f.h; rows.length = Math.min(rows.length, size); }
        note(f.note || f.end && `It ended: ${f.end}.` || f.error || '');
      }
      for (const y of dirty) if (y < size) paint(y);
      while (screen.children.length > size) screen.lastChild.remove();
      const real = next > 0 ? frames[next - 1].t : 0;
      clock.textContent = `${Math.floor(real / 60)}:${String(Math.floor(real % 60)).padStart(2, '0')}`;
      seek.value = length() ? Math.round(1000 * at / length()) : 0;
      seek.setAttribute('aria-valuetext', clock.textContent);
    }

    function tick(now) {
      if (!playing) return;
      at = live ? length() : Math.min(length(), at + (now - last) / 1000 * Number(speed.value));
      last = now;
      show();
      if (over && at >= length()) return turn(false);
      timer = requestAnimationFrame(tick);
    }

    function turn(on) {
      playing = on;
      play.textContent = on ? 'Pause' : 'Play';
      cancelAnimationFrame(timer);
      if (!on) return;
      if (over && at >= length()) at = 0;
      last = performance.now();
      timer = requestAnimationFrame(tick);
    }

    function go(to) {
      live = false;
      at = Math.min(Math.max(to, 0), length());
      if (goesOn && !over && at >= length()) live = true;
      show();
    }

    const faster = (by) => { speed.selectedIndex = Math.min(Math.max(speed.selectedIndex + by, 0), speed.options.length - 1); };
    const deeds = {
      ' ': () => turn(!playing), ArrowLeft: () => go(at - 5), ArrowRight: () => go(at + 5), Home: () => go(0), End: () => go(length()),
      '+': () => faster(1), '-': () => faster(-1),
    };
    play.addEventListener('click', () => turn(!playing), { signal: cut.signal });
    does('back').addEventListener('click', () => go(at - 5), { signal: cut.signal });
    does('on').addEventListener('click', () => go(at + 5), { signal: cut.signal });
    seek.addEventListener('input', () => go(length() * seek.value / 1000), { signal: cut.signal });
    document.addEventListener('keydown', (e) => {
      if (e.ctrlKey || e.altKey || e.metaKey || !deeds[e.key] || e.target.closest('input, select, textarea, button, a, summary')) return;
      e.preventDefault();
      deeds[e.key]();
    }, { signal: cut.signal });

    function take(line) {
      const f = JSON.parse(line), before = frames[frames.length - 1];
      f.p = before ? before.p + Math.min(Math.max(f.t - before.t, 0), longest) : 0;
      if (f.error) f.t = before ? before.t : 0;
      frames.push(f);
    }

    async function read() {
      const reply = await fetch(box.dataset.frames + (goesOn ? '?follow=yes' : ''), { signal: cut.signal });
      if (!reply.ok || !reply.headers.get('Content-Type')?.startsWith('application/x-ndjson')) throw new Error('The recording cannot be read: load the page again.');
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ''; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + value).split('\n');
        rest = lines.pop();
        lines.forEach(take);
        if (!playing) show();
      }
    }

    read().catch((err) => { if (err.name !== 'AbortError') note(err.message); }).finally(() => { over = true; if (!playing) show(); });
    stop = () => { cut.abort(); turn(false); };
    turn(goesOn);
  }

  document.addEventListener('shown', start);
  start();
})();
