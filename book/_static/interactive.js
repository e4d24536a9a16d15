// Draw each interactive figure over the still that stands in its place.
document.addEventListener("DOMContentLoaded", () => {
  for (const figure of document.querySelectorAll(".miue-interactive")) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector("div");
    vegaEmbed(place, spec, { actions: false, renderer: "svg" }).catch((error) => console.error(error));
  }
});
