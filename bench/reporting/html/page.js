"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const made = (tag, text, className) => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const { drawers } = JSON.parse(byId("data").textContent);

  // ---- light and dark
  const theme = byId("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const showTheme = () => {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    theme.setAttribute("aria-pressed", String(isDark()));
  };
  const remembered = (value) => {
    try { // some browsers keep nothing for pages on disk
      return value ? localStorage.setItem("theme", value) : localStorage.getItem("theme");
    } catch { return null; }
  };
  const stored = remembered();
  if (stored === "dark" || stored === "light") document.documentElement.dataset.theme = stored;
  theme.addEventListener("click", () => {
    remembered((document.documentElement.dataset.theme = isDark() ? "light" : "dark"));
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();

  // ---- tables: what is sorted and what is shown
  const tables = all("section.table").filter((section) => section.querySelector("table")).map((section) => ({
    section,
    heads: all("thead th", section),
    body: section.querySelector("tbody"),
    rows: all("tbody tr", section).map((row, place) => ({ row, place, encoders: (row.dataset.e ?? "").split(" ").filter(Boolean), words: "" })),
    hide: document.head.appendChild(document.createElement("style")),
  }));
  for (const table of tables) for (const item of table.rows) item.words = all(".id, .w", item.row).map((cell) => cell.textContent).join("\n").toLowerCase();

  const inOrder = new Intl.Collator("en", { numeric: true }).compare;
  const sort = (table, head) => {
    const column = table.heads.indexOf(head);
    const numbers = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const [first, second] = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
    const next = before === null ? first : before === first ? second : null;
    for (const other of table.heads) other.removeAttribute("aria-sort");
    if (next) head.setAttribute("aria-sort", next);
    const sign = next === "descending" ? -1 : 1;
    const keys = new Map(table.rows.map((item) => {
      const cell = item.row.cells[column];
      const missing = cell.classList.contains("m") || (numbers && cell.dataset.v === undefined);
      return [item, missing ? null : numbers ? Number(cell.dataset.v) : cell.textContent];
    }));
    const compare = (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place; // what is missing stays below
      return sign * (numbers ? x - y : inOrder(x, y)) || a.place - b.place;
    };
    const rows = next ? table.rows.toSorted(compare) : table.rows;
    table.body.append(...rows.map((item) => item.row));
  };

  const [text, family, menu, reset] = ["text", "family", "encoders", "reset"].map(byId);
  const boxes = all("input[type=checkbox]", menu);
  const { subject } = menu.dataset;
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const table of tables) {
      const hits = table.heads.map((head) => wanted && (head.dataset.e || head.dataset.f) && head.textContent.toLowerCase().includes(wanted));
      const rows = table.rows.map((item) => wanted !== "" && item.words.includes(wanted));
      const [byHead, byRow] = [hits.some(Boolean), rows.some(Boolean)];
      const gone = [];
      table.heads.forEach((head, i) => {
        const { e, f } = head.dataset;
        const out = (e && !shown.has(e)) || (f && family.value && f !== family.value) || (byHead && (e || f) && !hits[i] && !byRow);
        if (out) gone.push(`#${CSS.escape(table.section.id)} tr > :nth-child(${i + 1})`);
      });
      table.hide.textContent = gone.length ? `${gone.join(",")} { display: none }` : "";
      let left = 0;
      table.rows.forEach((item, i) => {
        const { f } = item.row.dataset;
        item.row.hidden = !item.encoders.every((e) => shown.has(e)) || (f && family.value && f !== family.value) || (wanted && !rows[i] && (byRow || !byHead));
        left += !item.row.hidden;
      });
      const cut = left < table.rows.length || gone.length;
      table.section.querySelector(".count").textContent = cut ? `${left} of ${table.rows.length} rows${gone.length ? `, ${table.heads.length - gone.length} of ${table.heads.length} columns` : ""}` : "";
      table.section.querySelector(".none").hidden = left > 0;
    }
    const some = shown.size < boxes.length;
    menu.querySelector("summary").textContent = some ? `${shown.size} of ${boxes.length} ${subject}` : `All ${subject}`;
    reset.hidden = !(wanted || family.value || some);
    byId("status").textContent = reset.hidden ? "" : `Marks and ranks are still those of all ${subject}.`;
  };
  text.addEventListener("input", filter);
  family.addEventListener("change", filter);
  menu.addEventListener("change", filter);
  menu.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const box of boxes) box.checked = Boolean(button.dataset.set);
    filter();
  });
  reset.addEventListener("click", () => {
    text.value = family.value = "";
    for (const box of boxes) box.checked = true;
    filter();
    text.focus();
  });
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  // ---- exact numbers
  const tip = byId("tip");
  for (const mark of all("g.tip")) { // one way to tell them, on the page and by keyboard too
    const title = mark.querySelector("title");
    mark.dataset.n = title.textContent;
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", title.textContent);
    mark.setAttribute("tabindex", "-1");
    title.remove();
  }
  for (const svg of all("figure svg")) svg.querySelector("g.tip")?.setAttribute("tabindex", "0");
  const describe = (place) => {
    const { v, i, n, k } = place.dataset;
    const lines = [];
    if (v !== undefined) lines.push(made("b", v));
    if (i) lines.push(made("span", `95 % interval ${i.replace(" ", " to ")}`));
    if (n) lines.push(made("span", n));
    if (k && drawers.cells[k]) lines.push(made("span", "Press for its origin"));
    return lines.flatMap((line, at) => (at ? [document.createElement("br"), line] : [line]));
  };
  const hideTip = () => { tip.hidden = true; };
  const showTip = (event) => {
    const place = event.target.closest?.("[data-v], [data-n]");
    if (!place) return hideTip();
    tip.replaceChildren(...describe(place));
    tip.hidden = false;
    const at = place.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(at.left + at.width / 2 - size.width / 2, document.documentElement.clientWidth - size.width - 4))}px`;
    tip.style.top = `${at.top - size.height - 6 > 0 ? at.top - size.height - 6 : Math.min(at.bottom + 6, innerHeight - size.height - 4)}px`;
  };
  document.addEventListener("pointerover", showTip);
  document.addEventListener("focusin", showTip);
  document.addEventListener("focusout", hideTip);
  document.addEventListener("scroll", hideTip, { capture: true, passive: true });

  // ---- the origin of a number
  const drawer = byId("drawer");
  const openDrawer = (cell) => {
    const [encoder, task, blocks] = drawers.cells[cell.dataset.k];
    const { i } = cell.dataset;
    byId("drawer-title").textContent = `${encoder} on ${task}`;
    byId("drawer-body").replaceChildren(...blocks.flatMap((block) => {
      const [heading, found] = drawers.blocks[block];
      const list = document.createElement("dl");
      const pairs = [...found];
      if (i && heading === "Score") pairs.splice(1, 0, ["95 % interval", i.replace(" ", " to ")]);
      for (const [what, value] of pairs) list.append(made("dt", what), made("dd", value, what === "command" ? "code" : ""));
      return [made("h3", heading), list];
    }));
    hideTip();
    drawer.showModal();
    drawer.scrollTop = 0;
  };
  byId("close").addEventListener("click", () => drawer.close());
  drawer.addEventListener("click", (event) => { if (event.target === drawer) drawer.close(); });

  // ---- one stop of the Tab key a table and a figure; arrow keys move inside
  const stop = (cell) => cell.querySelector("button") ?? cell;
  const isShown = (element) => element.getClientRects().length > 0;
  const rove = (group, element) => {
    for (const other of all("[tabindex='0']", group)) other.setAttribute("tabindex", "-1");
    element.setAttribute("tabindex", "0");
    element.focus();
  };
  const moved = (cell, key) => {
    const row = cell.parentElement;
    if (key === "ArrowLeft" || key === "ArrowRight" || key === "Home" || key === "End") {
      const cells = [...row.cells].filter(isShown);
      const at = cells.indexOf(cell);
      return cells[{ ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: cells.length - 1 }[key]];
    }
    const rows = all("tr", row.closest("table")).filter(isShown);
    return rows[rows.indexOf(row) + (key === "ArrowDown" ? 1 : -1)]?.cells[cell.cellIndex];
  };
  const open = (cell) => { if (drawers.cells[cell.dataset.k]) openDrawer(cell); };
  for (const table of tables) {
    const grid = table.section.querySelector("table");
    grid.addEventListener("keydown", (event) => {
      const cell = event.target.closest("th, td");
      if (/^(Arrow|Home|End)/.test(event.key)) {
        const next = moved(cell, event.key);
        event.preventDefault();
        if (next) rove(grid, stop(next));
      } else if ((event.key === "Enter" || event.key === " ") && cell.dataset.k) {
        event.preventDefault();
        open(cell);
      }
    });
    grid.addEventListener("click", (event) => {
      const cell = event.target.closest("th, td");
      if (!cell) return;
      rove(grid, stop(cell));
      if (cell.closest("thead")) sort(table, cell);
      else open(cell);
    });
  }
  for (const svg of all("figure svg")) {
    const marks = all("g.tip", svg);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = step && marks[marks.indexOf(event.target) + step];
      if (step) event.preventDefault();
      if (next) rove(svg, next);
    });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  // ---- contents folded on small screens; a section unfolds where a link leads
  if (innerWidth < 1080) document.querySelector("nav details").open = false;
  const unfold = (hash) => {
    const details = byId(hash.slice(1))?.querySelector(":scope > details");
    if (details) details.open = true;
  };
  addEventListener("hashchange", () => unfold(location.hash));
  document.addEventListener("click", (event) => unfold(event.target.closest("a")?.hash ?? "")); // before it scrolls
  unfold(location.hash);
  const PAPER = 1000; // pixels across a sheet of A4 on its side
  addEventListener("beforeprint", () => {
    for (const table of all("table")) table.style.zoom = Math.max(0.3, Math.min(1, PAPER / table.scrollWidth));
  });
  addEventListener("afterprint", () => {
    for (const table of all("table")) table.style.zoom = "";
  });
})();
