/* Filters and order of the ledger. Without this script the table is complete, grouped by chapter. */
(function () {
  "use strict";

  const FILTERS = {
    status: "verdict",
    paper: "paper",
    provenance: "where it comes from",
    data: "data",
  };
  const ORDERS = { book: "by chapter", id: "by claim", status: "by verdict", paper: "by paper" };

  function choice(name, label, options, change) {
    const select = document.createElement("select");
    select.name = name;
    for (const [value, text] of options) select.append(new Option(text, value));
    select.addEventListener("change", change);
    const node = document.createElement("label");
    node.append(`${label} `, select);
    return { node, select };
  }

  function begin(table) {
    const rows = [...table.querySelectorAll("tbody tr[data-status]")];
    const groups = [...table.tBodies];
    const homes = new Map(rows.map((row) => [row, row.parentElement]));
    const flat = document.createElement("tbody");
    const form = document.createElement("form");
    const said = document.createElement("output");
    form.className = "dln-filters";
    form.addEventListener("submit", (event) => event.preventDefault());

    const selects = Object.entries(FILTERS).map(([key, label]) => {
      const values = [...new Set(rows.map((row) => row.dataset[key]))].sort();
      const options = [["", "all"], ...values.map((value) => [value, value])];
      return choice(key, label, options, show);
    });
    const order = choice("order", "order", Object.entries(ORDERS), arrange);
    const clear = document.createElement("button");
    clear.type = "button";
    clear.textContent = "Show all";
    clear.addEventListener("click", () => {
      selects.forEach(({ select }) => (select.value = ""));
      show();
    });
    said.setAttribute("aria-live", "polite");
    form.append(...selects.map(({ node }) => node), order.node, clear, said);
    table.before(form);

    function show() {
      const wanted = selects.filter(({ select }) => select.value);
      for (const row of rows) {
        row.hidden = wanted.some(({ select }) => row.dataset[select.name] !== select.value);
      }
      for (const group of groups) {
        group.hidden = ![...group.rows].some((row) => row.dataset.status && !row.hidden);
      }
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} verdicts`;
    }

    function arrange() {
      const by = order.select.value;
      if (by === "book") {
        rows.forEach((row) => homes.get(row).append(row));
        flat.remove();
        table.append(...groups);
      } else {
        const key = (row) => (by === "id" ? row.id : row.dataset[by]);
        flat.append(...[...rows].sort((a, b) => key(a).localeCompare(key(b))));
        groups.forEach((group) => group.remove());
        table.append(flat);
      }
      show();
    }

    show();
  }

  document.querySelectorAll("table.dln-ledger").forEach(begin);
})();
