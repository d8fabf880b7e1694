// What pages do without a reload: forms are sent and their answers shown in
// place, passkeys are asked, and a page that changes on the server changes
// here. Everything but passkeys works without this file, too.
'use strict';
(() => {
  const trusted = window.trustedTypes
    ? trustedTypes.createPolicy('curfew', { createHTML: (s) => s }) // from this server alone, which escapes
    : { createHTML: (s) => s };
  const parse = (html) => new DOMParser().parseFromString(trusted.createHTML(html), 'text/html');
  const say = (text) => { document.getElementById('said').textContent = text; };
  const keys = {}; // of what was sent and not answered: sent again, it makes nothing twice
  let stream, secret = '';

  function complain(text) {
    const main = document.getElementById('main');
    let p = document.getElementById('error');
    if (!p) {
      p = Object.assign(document.createElement('p'), { id: 'error', className: 'alert' });
      p.setAttribute('role', 'alert');
      main.prepend(p);
    }
    p.textContent = text;
    p.scrollIntoView({ block: 'nearest' });
  }

  // Put another page in place of this one.
  function show(html, url) {
    const next = parse(html);
    document.title = next.title;
    for (const id of ['top', 'main']) document.getElementById(id).replaceWith(next.getElementById(id));
    document.body.toggleAttribute('data-follow', next.body.hasAttribute('data-follow'));
    if (url !== location.href) history.pushState(null, '', url);
    const at = document.getElementById('error') || document.getElementById('main');
    at.setAttribute('tabindex', '-1');
    at.focus();
    scrollTo(0, 0);
    begin();
    document.dispatchEvent(new Event('shown'));
  }

  // What somebody has typed, opened or come to in a part of the page stays so
  // in what takes its place.
  function hold(part) {
    const all = (p) => [...p.querySelectorAll('a, button, input, textarea, summary, [tabindex]')];
    const name = (e) => [e.localName, e.id, e.name, e.type === 'radio' || e.type === 'checkbox' ? e.value : '', e.getAttribute('href'),
      e.getAttribute('formaction') || e.form?.getAttribute('action'), e.localName === 'summary' && (e.ariaLabel || e.textContent)].join('\n');
    const was = new Map(all(part).map((e) => [name(e), e])), focus = part.contains(document.activeElement) && document.activeElement;
    return (next) => {
      for (const e of all(next)) {
        const old = was.get(name(e));
        if (!old) continue;
        if ('defaultValue' in old && old.value !== old.defaultValue) e.value = old.value;
        if ('defaultChecked' in old && old.checked !== old.defaultChecked) e.checked = old.checked;
        if (old.localName === 'summary') e.parentElement.open = old.parentElement.open;
        if (old !== focus) continue;
        e.focus({ preventScroll: true });
        if (old.selectionStart != null) e.setSelectionRange(old.selectionStart, old.selectionEnd);
      }
      if (focus && !next.contains(document.activeElement)) document.getElementById('main').focus({ preventScroll: true });
    };
  }

  // Change what has changed, and leave alone what somebody is at.
  function renew(html) {
    const next = parse(html);
    for (const now of document.querySelectorAll('[data-live]')) {
      const then = next.getElementById(now.id);
      if (!then) continue;
      const text = then.outerHTML;
      if (now.was === undefined) now.was = now.outerHTML;
      if (now.was === text) continue;
      const said = then.dataset.say;
      if (said && said !== now.dataset.say) say(said);
      then.was = text;
      const back = hold(now);
      now.replaceWith(then);
      back(then);
    }
  }

  function begin() {
    stream?.close();
    stream = undefined;
    for (const form of document.querySelectorAll('form[data-secret]')) {
      secret = location.hash.slice(1) || secret; // never in a log or a history
      form.elements.secret.value = secret;
      history.replaceState(null, '', location.pathname);
    }
    for (const live of document.querySelectorAll('[data-live]')) live.was = live.outerHTML;
    if (!document.body.hasAttribute('data-follow')) return;
    stream = new EventSource(location.href);
    stream.addEventListener('page', (e) => renew(JSON.parse(e.data)));
    stream.addEventListener('over', () => location.reload());
  }

  async function ceremony(reply) {
    if (!window.PublicKeyCredential?.parseRequestOptionsFromJSON) throw new Error('This browser is too old for passkeys.');
    const { options, token } = reply.get || reply.create;
    const made = reply.get
      ? await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) })
      : await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) });
    return JSON.stringify({ token, answer: made.toJSON() });
  }

  async function send(form, button) {
    const data = new URLSearchParams(new FormData(form, button));
    const action = button?.getAttribute('formaction') || form.getAttribute('action');
    if (data.has('key')) data.set('key', keys[action] ||= crypto.randomUUID());
    if (button?.hasAttribute('data-passkey')) data.set('ask', 'passkey');
    for (;;) {
      const reply = await fetch(action, { method: 'POST', body: data });
      if (!reply.headers.get('Content-Type')?.startsWith('application/json')) {
        const here = reply.redirected ? reply.url : location.href;
        show(await reply.text(), here);
        if (reply.status < 500) delete keys[action]; // a proxy's own answer says nothing of ours
        return;
      }
      const next = await reply.json();
      if (next.error) { complain(next.error); return; }
      data.delete('ask');
      data.delete('assertion');
      data.set(next.get ? 'assertion' : 'made', await ceremony(next));
    }
  }

  document.addEventListener('submit', async (e) => {
    const form = e.target;
    if (form.method !== 'post' || form.hasAttribute('data-plain')) return; // its answer leads elsewhere
    e.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = 'yes';
    form.setAttribute('aria-busy', 'true');
    try {
      await send(form, e.submitter);
    } catch (err) {
      complain(err.name === 'NotAllowedError' ? 'Your passkey was not used: try again.'
        : err.name === 'InvalidStateError' ? 'This passkey is enrolled already.'
          : err.name === 'TypeError' ? 'The server does not answer: try again.' : err.message);
    } finally {
      delete form.dataset.busy;
      form.removeAttribute('aria-busy');
    }
  });
  addEventListener('popstate', () => location.reload());
  begin();
})();
