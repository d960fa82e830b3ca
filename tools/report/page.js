"use strict";
(() => {
  const scenes = JSON.parse(document.getElementById("scenes").textContent);
  const form = document.getElementById("filters");
  const parent = document.getElementById("queries");
  const dialog = document.getElementById("scene");
  const queries = [...parent.children].map((article) => ({
    article,
    words: article.dataset.words.toLowerCase(),
    lists: [...article.querySelectorAll(".list")].map((element) => ({
      element,
      ap: Number(element.dataset.ap),
      missed: Number(element.dataset.missed),
      kinds: [...element.querySelectorAll("button")].map((button) => button.dataset.kind),
    })),
  }));

  const tests = {
    all: () => true,
    wrong: (left) => left.kinds[0] !== "right",
    missed: (left) => left.missed > 0,
    better: (left, right) => right.ap > left.ap + 1e-9,
    worse: (left, right) => right.ap < left.ap - 1e-9,
  };
  const firstWrong = (kind) => (left) => left.kinds.find((each) => each !== "right") === kind;
  const keys = {
    worst: (left) => left.ap,
    best: (left) => -left.ap,
    gain: (left, right) => left.ap - right.ap,
    loss: (left, right) => right.ap - left.ap,
  };

  function update() {
    const choice = Object.fromEntries(new FormData(form));
    const test = tests[choice.show] || firstWrong(choice.show);
    const shown = [];
    for (const query of queries) {
      const left = query.lists[choice.left];
      const right = query.lists[choice.right];
      query.article.hidden = !(test(left, right) && query.words.includes(choice.find.toLowerCase()));
      query.key = keys[choice.order](left, right);
      for (const list of query.lists) list.element.hidden = list !== left && list !== right;
      left.element.parentElement.prepend(left.element);
      if (!query.article.hidden) shown.push(query);
    }
    shown.sort((one, other) => one.key - other.key);
    parent.append(...shown.map((query) => query.article));
    form.querySelector("output").textContent = `${shown.length} of ${queries.length}`;
  }

  function open(button) {
    const [left, top, width, height] = button.dataset.box.split(" ");
    const box = dialog.querySelector(".box");
    Object.assign(box.style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
    dialog.querySelector("img").src = scenes[button.dataset.scene];
    dialog.showModal();
  }

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  parent.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) open(button);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  update();
})();
