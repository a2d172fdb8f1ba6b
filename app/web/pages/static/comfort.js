/* Comfort only: every page works without this file. Local times, copy buttons, pages that bring
   themselves up to date by asking again. */
"use strict";

(() => {
  const EVERY_MS = 10000;
  const PAUSED = "sync-health-paused";
  const WAITS = " (paused while in use)";
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const brief = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

  function localTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (time.title || Number.isNaN(at.getTime())) continue;
      const short = time.classList.contains("short");
      time.title = short ? exact.format(at) : time.textContent;
      time.textContent = (short ? brief : exact).format(at);
    }
  }

  function copyButtons(root) {
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

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) copy(button);
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  const isMarked = (part) => {
    const selected = document.getSelection();
    return selected && !selected.isCollapsed && selected.containsNode(part, true);
  };

  /* What tells an element from its like, before and after a part is replaced. */
  const known = (element) => `${element.tagName} ${element.textContent} ${element.parentElement.textContent}`;

  const likeOf = (element, root) => [...root.querySelectorAll(element.tagName)].find((each) => known(each) === known(element));

  /* Put the new part in the old one's place: what is open stays open, the focus stays where it is.
     False when it is in use in a way that this would disturb. */
  function replace(part, now) {
    for (const details of part.querySelectorAll("details[open]")) {
      const same = likeOf(details, now);
      if (same) same.open = true;
    }
    if (now.innerHTML === part.innerHTML) return true;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const next = focused && likeOf(focused, now);
    if (isMarked(part) || (focused && !next)) return false;
    part.replaceChildren(...document.adoptNode(now).childNodes);
    if (next) next.focus({ preventScroll: true });
    return true;
  }

  /* True when every part is as fresh as the answer. */
  function adopt(fresh) {
    let whole = true;
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (!now) continue;
      localTimes(now);
      copyButtons(now);
      whole = replace(part, now) && whole;
    }
    return whole;
  }

  async function refresh(told) {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (answer.redirected) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      const whole = adopt(new DOMParser().parseFromString(await answer.text(), "text/html"));
      if (whole) told.textContent = `As of ${new Date().toLocaleTimeString()}`;
      else if (!told.textContent.endsWith(WAITS)) told.textContent += WAITS;
    } catch {
      told.textContent = "The service does not answer; what is shown may be old";
    }
  }

  function keepFresh(place) {
    const told = document.createElement("span");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = sessionStorage.getItem(PAUSED) === null;
    label.append(box, " Keep up to date");
    place.append(told, label);
    place.hidden = false;
    box.addEventListener("change", () => {
      if (box.checked) { sessionStorage.removeItem(PAUSED); refresh(told); }
      else sessionStorage.setItem(PAUSED, "yes");
    });
    setInterval(() => {
      if (box.checked && document.visibilityState === "visible") refresh(told);
    }, EVERY_MS);
  }

  localTimes(document);
  copyButtons(document);
  const place = document.querySelector("[data-fresh]");
  if (place) keepFresh(place);
})();
