/* Optional enhancements; every page works without this file: local times, copy buttons, and
   automatic refresh of an open page. */
"use strict";

(() => {
  const INTERVAL_MS = 10000;
  const OFF_KEY = "sync-health-auto-refresh-off";
  const PAUSED = " (paused while you're selecting text)";
  const DATE = { day: "numeric", month: "short" };
  const TIME = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const fixedZone = document.documentElement.dataset.zone;
  const readerZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const zone = fixedZone || readerZone;
  const format = (options, timeZone = zone) => new Intl.DateTimeFormat("en-GB", { ...options, timeZone });
  const long = format({ ...DATE, year: "numeric", ...TIME, second: "2-digit", timeZoneName: "short" });
  const utc = format({ ...DATE, year: "numeric", ...TIME, second: "2-digit", timeZoneName: "short" }, "UTC");
  const short = format({ ...DATE, ...TIME });
  const shortWithYear = format({ ...DATE, year: "numeric", ...TIME });
  const year = format({ year: "numeric" });
  const clock = format({ ...TIME, second: "2-digit" });
  const zoneOffset = new Intl.DateTimeFormat("en-AU", { timeZone: zone, timeZoneName: "short" })
    .formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;

  /* "5 min ago" for the last day; null for other times. */
  function relative(at) {
    const minutes = Math.round((Date.now() - at) / 60000);
    if (minutes < 0 || minutes >= 1440) return null;
    if (minutes < 1) return "just now";
    return minutes < 60 ? `${minutes} min ago` : `${Math.floor(minutes / 60)} h ago`;
  }

  function showLocalTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const isShort = time.classList.contains("short");
      const isThisYear = year.format(at) === year.format(new Date());
      const text = isShort ? relative(at) || (isThisYear ? short : shortWithYear).format(at) : long.format(at);
      if (time.textContent !== text) time.textContent = text;
      time.title = isShort ? long.format(at) : utc.format(at);
    }
  }

  function showCopyButtons(root) {
    for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
  }

  /* Pages that are not served over HTTPS have no clipboard, but can copy a selection. */
  function copySelection(text) {
    const field = document.createElement("textarea");
    const focused = document.activeElement;
    field.value = text;
    field.className = "sr-only";
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    if (focused) focused.focus({ preventScroll: true });
    if (!isCopied) throw new Error("not copied");
  }

  async function copy(button) {
    const label = button.dataset.label || (button.dataset.label = button.textContent);
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(button.dataset.copy);
      else copySelection(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  }

  const openMenus = () => document.querySelectorAll("details.menu[open]");

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) copy(button);
    for (const menu of openMenus()) menu.open = menu.contains(event.target);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of openMenus()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  const isSelected = (part) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && selection.containsNode(part, true);
  };

  /* Identifies an element before and after its part of the page is replaced. */
  const identity = (element) => `${element.tagName} ${element.textContent} ${element.parentElement.textContent}`;

  const counterpart = (element, root) =>
    [...root.querySelectorAll(element.tagName)].find((other) => identity(other) === identity(element));

  /* Replace a part of the page: open details stay open, the focus stays where it is. Returns false
     if that would disturb a selection or the focus. */
  function replacePart(part, fresh) {
    for (const details of part.querySelectorAll("details[open]")) {
      const same = counterpart(details, fresh);
      if (same) same.open = true;
    }
    if (fresh.innerHTML === part.innerHTML) return true;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const target = focused && counterpart(focused, fresh);
    if (isSelected(part) || (focused && !target)) return false;
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    if (target) target.focus({ preventScroll: true });
    return true;
  }

  /* The address of this page with its days in the reader's time zone. */
  function address() {
    const url = new URL(location.href);
    if (!fixedZone && zone !== "UTC" && document.querySelector("[data-days]")) url.searchParams.set("tz", zone);
    return url;
  }

  /* Returns true when every part was replaced. */
  function replaceParts(page) {
    let isComplete = true;
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
      if (!fresh) continue;
      for (const root of [part, fresh]) showLocalTimes(root);
      showCopyButtons(fresh);
      isComplete = replacePart(part, fresh) && isComplete;
    }
    return isComplete;
  }

  async function reload() {
    const response = await fetch(address(), { credentials: "same-origin" });
    if (response.redirected) { location.reload(); return true; }
    if (!response.ok) throw new Error(String(response.status));
    return replaceParts(new DOMParser().parseFromString(await response.text(), "text/html"));
  }

  async function refresh(status) {
    try {
      if (await reload()) status.textContent = `Updated ${clock.format(new Date())}`;
      else if (!status.textContent.endsWith(PAUSED)) status.textContent += PAUSED;
    } catch {
      status.textContent = "Connection lost. Data may be out of date.";
    }
  }

  function startAutoRefresh(container) {
    const status = document.createElement("span");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = sessionStorage.getItem(OFF_KEY) === null;
    label.append(box, " Auto-refresh");
    container.append(status, label);
    container.hidden = false;
    box.addEventListener("change", () => {
      if (box.checked) { sessionStorage.removeItem(OFF_KEY); refresh(status); }
      else sessionStorage.setItem(OFF_KEY, "yes");
    });
    setInterval(() => {
      if (box.checked && document.visibilityState === "visible") refresh(status);
    }, INTERVAL_MS);
  }

  /* Dates in a form are days of the reader. Fields without a value stay out of the address. */
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "get") return;
    const zoneField = form.elements.tz;
    if (zoneField) zoneField.value = form.elements.from.value || form.elements.to.value ? readerZone : "";
    const empty = [...form.elements].filter((field) => field.name && !field.value && !field.disabled);
    for (const field of empty) field.disabled = true;
    setTimeout(() => { for (const field of empty) field.disabled = false; });
  });

  /* Style shows the panel that the address names; this says which one that is. */
  function markTab() {
    for (const tab of document.querySelectorAll(".tabs a[href^='#']")) {
      if (tab.hash === (document.querySelector(".tab-panels > :target") ? location.hash : "#items")) tab.setAttribute("aria-current", "true");
      else tab.removeAttribute("aria-current");
    }
  }
  addEventListener("hashchange", markTab);
  markTab();

  /* Parts that wait for Codat are loaded after the page. */
  for (const part of document.querySelectorAll("[data-load]")) {
    fetch(part.dataset.load, { credentials: "same-origin" })
      .then((response) => response.ok && !response.redirected ? response.text() : "")
      .then((html) => new DOMParser().parseFromString(html, "text/html").querySelector("[data-loaded]"))
      .then((loaded) => { if (loaded) part.replaceChildren(document.adoptNode(loaded)); })
      .catch(() => {});
  }

  showLocalTimes(document);
  showCopyButtons(document);
  setInterval(() => showLocalTimes(document), 30000);
  if (String(address()) !== location.href) reload().catch(() => {});
  const times = document.querySelector("[data-times]");
  if (times) times.textContent = `Times and days: ${zone === "UTC" ? zone : `${zone} (${zoneOffset})`}.`;
  const container = document.querySelector("[data-auto-refresh]");
  if (container) startAutoRefresh(container);
})();
