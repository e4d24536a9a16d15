// The leaderboard is a plain table that can be read without this script, which makes it sortable and filterable.
document.querySelectorAll("table.miue-leaderboard").forEach((table) => {
  new DataTable(table, {
    paging: false,
    autoWidth: false,
    order: [], // the rows come largest scale first, groups together
    ordering: { indicators: false, handler: false }, // the buttons of each column do both
    columnDefs: [
      { targets: "miue-list", columnControl: ["order", ["searchList"]] },
      { targets: "miue-value", columnControl: ["order", ["search"]] },
    ],
    language: { search: "Search all columns:", info: "_TOTAL_ trials", infoEmpty: "no trial", zeroRecords: "no such trial" },
  });
});
