/* Optional enhancements; every page works without this file: local times, copy buttons, and
   automatic refresh of an open page. */
"use strict";

(() => {
  const INTERVAL_MS = 10000;
  const OFF_KEY = "sync-health-auto-refresh-off";
  const PAUSED = " (paused while you're selecting text)";
  const DATE = { day: "numeric", month: "short" };
  const TIME = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const format = (options) => new Intl.DateTimeFormat("en-GB", options);
  const long = format({ ...DATE, year: "numeric", ...TIME, second: "2-digit" });
  const short = format({ ...DATE, ...TIME });
  const shortWithYear = format({ ...DATE, year: "numeric", ...TIME });
  const clock = format({ ...TIME, second: "2-digit" });
  const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" })
    .formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;

  function showLocalTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (time.title || Number.isNaN(at.getTime())) continue;
      const isShort = time.classList.contains("short");
      const isThisYear = at.getFullYear() === new Date().getFullYear();
      time.title = isShort ? `${long.format(at)} ${zone}` : time.textContent;
      time.textContent = (isShort ? (isThisYear ? short : shortWithYear) : long).format(at);
    }
  }

  function showCopyButtons(root) {
    if (!navigator.clipboard) return;
    for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
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

  /* Returns true when every part was replaced. */
  function replaceParts(page) {
    let isComplete = true;
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
      if (!fresh) continue;
      showLocalTimes(fresh);
      showCopyButtons(fresh);
      isComplete = replacePart(part, fresh) && isComplete;
    }
    return isComplete;
  }

  async function refresh(status) {
    try {
      const response = await fetch(location.href, { credentials: "same-origin" });
      if (response.redirected) { location.reload(); return; }
      if (!response.ok) throw new Error(String(response.status));
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      if (replaceParts(page)) status.textContent = `Updated ${clock.format(new Date())}`;
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

  showLocalTimes(document);
  showCopyButtons(document);
  const times = document.querySelector("[data-times]");
  if (times) times.textContent = `Times: your time zone (${zone}). Days: UTC.`;
  const container = document.querySelector("[data-auto-refresh]");
  if (container) startAutoRefresh(container);
})();
