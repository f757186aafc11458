for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentNode, body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = column ? head.ariaSort !== "descending" : head.ariaSort === "ascending";
  const value = row => column ? +row.cells[column].dataset.v : row.cells[0].textContent;
  const order = (a, b) => column ? value(a) - value(b) : value(a).localeCompare(value(b), "en", {numeric: true});
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = down ? "descending" : "ascending";
  body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
};
for (const input of document.querySelectorAll("input[type=search]")) input.oninput = () => {
  for (const row of input.closest("section").querySelector("tbody").rows)
    row.hidden = !row.cells[0].textContent.toLowerCase().includes(input.value.trim().toLowerCase());
};
