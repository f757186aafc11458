"use strict";
(() => {
  const {names, columns} = JSON.parse(document.getElementById("data").textContent);
  const section = document.getElementById("servers"), scroll = section.querySelector(".scroll");
  const table = scroll.querySelector("table"), head = table.tHead.rows[0], body = table.tBodies[0];
  const box = section.querySelector("input"), views = section.querySelector(".views"), found = section.querySelector(".found");
  const AROUND = 30, PRINTED = 500;

  // The words of formats.py.
  const count = value => value.toLocaleString("en-US");
  const fixed = (value, digits) => value.toLocaleString("en-US", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  const two = value => String(value).padStart(2, "0");
  const duration = seconds => {
    if (seconds < 60) return `${seconds.toFixed(1)} s`;
    const minutes = Math.floor(Math.round(seconds) / 60), hours = Math.floor(minutes / 60);
    if (minutes < 60) return `${minutes} min ${two(Math.round(seconds) % 60)} s`;
    return hours < 48 ? `${hours} h ${two(minutes % 60)} min` : `${((hours + minutes % 60 / 60) / 24).toFixed(1)} d`;
  };
  const size = bytes => {
    let unit = 0;
    for (; bytes >= 1000 && unit < 5; unit++) bytes /= 1000;
    return `${bytes.toFixed(unit ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
  };
  const some = text => value => value ? text(value) : "";
  const forms = {
    count, text: value => value || "", figure: some(count), duration: some(duration), size: some(size),
    rate: some(value => fixed(value, 2)), ms: some(value => `${count(value)} ms`),
    limit: value => value ? String(value) : "none",
  };
  const valueOf = (column, row) => {
    if (!column.values) return column.form === "text" ? "" : 0;
    return column.texts ? column.texts[column.values[row]] : column.values[row];
  };
  const textOf = (column, row) => { const value = valueOf(column, row); return value === null ? "?" : forms[column.form](value); };

  let view = "outcomes", sorted = columns[0], down = true, rows = names.map((_, row) => row), first = -1, height = 0, printing = false;
  const shown = () => columns.filter(column => column.view === view);
  const lower = names.map(name => name.toLowerCase());
  const texts = columns.filter(column => column.form === "text" && column.values);

  const line = row => {
    const tr = document.createElement("tr"), name = document.createElement("th");
    name.scope = "row";
    name.textContent = name.title = names[row];
    tr.append(name, ...shown().map(column => {
      const td = document.createElement("td");
      td.textContent = textOf(column, row);
      if (column.form === "text") td.className = "text", td.title = td.textContent;
      return td;
    }));
    return tr;
  };
  const gap = pixels => {
    const tr = document.createElement("tr"), td = document.createElement("td");
    tr.className = "gap";
    tr.ariaHidden = true;
    td.colSpan = head.cells.length;
    td.style.height = `${pixels}px`;
    tr.append(td);
    return tr;
  };
  // Only lines that are in sight, and some around them, are in the page.
  const draw = () => {
    if (printing) return;
    const visible = Math.ceil(scroll.clientHeight / (height || 28));
    const wanted = Math.max(0, Math.min(rows.length - visible, Math.floor(scroll.scrollTop / (height || 28))) - AROUND);
    const from = wanted - wanted % 10;
    if (from === first) return;
    first = from;
    const lines = rows.slice(from, from + visible + 2 * AROUND + 10);
    body.replaceChildren(gap(from * height), ...lines.map(line), gap((rows.length - from - lines.length) * height));
    [...body.rows].forEach((tr, at) => { tr.ariaRowIndex = from + at + 1; });
    const measured = lines.length ? body.rows[1].getBoundingClientRect().height : height;
    if (measured && Math.abs(measured - height) > .01) {
      height = measured;
      first = -1;
      draw();
    }
  };
  const redraw = () => {
    first = -1;
    table.ariaRowCount = rows.length + 1;
    found.textContent = rows.length === names.length ? "" : `${count(rows.length)} of ${count(names.length)}`;
    draw();
  };
  const compare = new Intl.Collator("en", {numeric: true}).compare;
  const order = () => {
    const number = value => value === null ? -1 : value;
    if (sorted === null) rows.sort((a, b) => compare(names[a], names[b]));
    else if (sorted.form === "text") rows.sort((a, b) => compare(valueOf(sorted, a), valueOf(sorted, b)) || a - b);
    else if (sorted.form === "limit") rows.sort((a, b) => (valueOf(sorted, a) || Infinity) - (valueOf(sorted, b) || Infinity) || a - b);
    else rows.sort((a, b) => number(valueOf(sorted, a)) - number(valueOf(sorted, b)) || b - a);
    if (down) rows.reverse();
  };
  const filter = () => {
    const wanted = box.value.trim().toLowerCase();
    const has = row => lower[row].includes(wanted) || texts.some(column => valueOf(column, row).toLowerCase().includes(wanted));
    rows = names.map((_, row) => row);
    if (wanted) rows = rows.filter(has);
    order();
    scroll.scrollTop = 0;
    redraw();
  };
  const drawHead = () => {
    head.replaceChildren(...[null, ...shown()].map(column => {
      const th = document.createElement("th"), button = document.createElement("button");
      th.scope = "col";
      if (column && column.form === "text") th.className = "text";
      if (column === sorted) th.ariaSort = down ? "descending" : "ascending";
      button.textContent = column ? column.name : "server";
      button.onclick = () => {
        down = column === sorted ? !down : column !== null;
        sorted = column;
        order();
        scroll.scrollTop = 0;
        drawHead();
        redraw();
        head.cells[th.cellIndex < 0 ? 0 : th.cellIndex]?.querySelector("button").focus();
      };
      th.append(button);
      return th;
    }));
  };
  const choices = [...new Set(columns.map(column => column.view))];
  views.append(...choices.map(name => {
    const button = document.createElement("button");
    button.textContent = name;
    button.ariaPressed = name === view;
    button.onclick = () => {
      view = name;
      for (const other of views.children) other.ariaPressed = other === button;
      drawHead();
      redraw();
    };
    return button;
  }));
  views.style.cssText = "display:flex;gap:.3rem;flex-wrap:wrap";
  box.oninput = filter;
  scroll.onscroll = draw;
  onresize = redraw;
  onbeforeprint = () => {
    printing = true;
    body.replaceChildren(...rows.slice(0, PRINTED).map(line));
  };
  onafterprint = () => {
    printing = false;
    redraw();
  };
  drawHead();
  redraw();
})();
