// Draw each interactive figure over the still that stands in its place.
document.addEventListener("DOMContentLoaded", () => {
  for (const figure of document.querySelectorAll(".miue-interactive")) {
    const images = new Set([...figure.querySelectorAll("image")].map((image) => image.getAttribute("xlink:href")));
    let text = figure.querySelector("script").textContent;
    [...images].forEach((image, place) => (text = text.replaceAll(`"image ${place}"`, `"${image}"`)));
    const spec = JSON.parse(text);
    const place = figure.querySelector("div");
    const { stops, play } = spec.usermeta;
    if (spec.columns && figure.clientWidth < 560) spec.columns = 1;
    vegaEmbed(place, spec, { actions: false, renderer: "svg" })
      .then(({ view }) => {
        place.removeAttribute("aria-hidden"); // it holds sliders now; the figure has its label
        place.querySelector("svg").setAttribute("aria-hidden", "true");
        for (const name in stops) showStops(place.querySelector(`[name="${name}"]`), stops[name]);
        if (play) addButton(view, place.querySelector(`[name="${play}"]`));
      })
      .catch((error) => console.error(error));
  }
});

// Beside a slider that counts places in a list, show what stands there.
function showStops(slider, stops) {
  const show = () => {
    slider.nextSibling.textContent = stops[slider.value];
    slider.setAttribute("aria-valuetext", stops[slider.value]);
  };
  for (const event of ["input", "change"]) slider.addEventListener(event, show);
  show();
}

// A button that moves a slider to its end, from its start if it is there already.
function addButton(view, slider) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const button = document.createElement("button");
  let timer;
  const stop = () => {
    timer = clearInterval(timer);
    button.textContent = "play";
  };
  const move = () => {
    if (slider.value === slider.max) return stop();
    slider.stepUp();
    view.signal(slider.name, Number(slider.value)).run();
  };
  button.type = "button";
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = slider.min;
    button.textContent = "stop";
    timer = setInterval(move, 200);
  });
  slider.addEventListener("input", stop);
  slider.closest(".vega-bind").append(button);
  stop();
}
