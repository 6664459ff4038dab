// In place of flot-orderbars: bars of several series at the same x stand side by side, in the order of bars.order.
(function ($) {
  "use strict";

  function shift(plot, series, datapoints) {
    if (!series.bars.show || series.bars.order === undefined) return;
    const ordered = plot.getData().filter((one) => one.bars.order !== undefined);
    const place = ordered.filter((one) => one.bars.order < series.bars.order).length;
    const by = (place - (ordered.length - 1) / 2) * series.bars.barWidth;
    for (let i = 0; i < datapoints.points.length; i += datapoints.pointsize) datapoints.points[i] += by;
  }

  $.plot.plugins.push({ init: (plot) => plot.hooks.processDatapoints.push(shift), options: {}, name: "orderBars", version: "1" });
})(jQuery);
