// Numbers and times, as people read them.

const grouped = new Intl.NumberFormat("en", { useGrouping: true, maximumFractionDigits: 20 });

export function count(number) {
  return grouped.format(number).replaceAll(",", "\u202f");
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** A value with about so many digits, without a tail of zeros. */
export function value(number, digits = 5) {
  if (number === null || number === undefined) return "–";
  if (typeof number !== "number" || Number.isInteger(number)) return String(number);
  return String(Number(number.toPrecision(digits)));
}

export function seconds(time) {
  const sign = time < 0 ? "−" : "";
  const total = Math.abs(time);
  if (total < 60) return `${sign}${total.toFixed(3)} s`;
  const whole = Math.floor(total);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const text = parts.map((part) => String(part).padStart(2, "0")).join(":");
  return `${sign}${text}${(total - whole).toFixed(3).slice(1)}`;
}

export function difference(time) {
  const sign = time < 0 ? "−" : "+";
  const size = Math.abs(time);
  if (size < 1) return `${sign}${(size * 1000).toFixed(1)} ms`;
  return `${sign}${size < 60 ? `${size.toFixed(2)} s` : seconds(size)}`;
}

const formats = new Map();

function format(zone, options) {
  const key = `${zone}|${JSON.stringify(options)}`;
  if (!formats.has(key)) {
    let made;
    try {
      made = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...options });
    } catch {
      // A zone that the browser does not know.
      made = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hourCycle: "h23", ...options });
    }
    formats.set(key, made);
  }
  return formats.get(key);
}

/** How far the clocks of a zone are ahead of UTC at a time, in seconds. */
export function offset(zone, time) {
  const all = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };
  const parts = format(zone, all).formatToParts(new Date(time * 1000));
  const { year, month, day, hour, minute, second } = Object.fromEntries(parts.map(({ type, value: said }) => [type, Number(said)]));
  return Date.UTC(year, month - 1, day, hour, minute, second) / 1000 - Math.floor(time);
}

/** A time on the timeline, as fine as the distance of its ticks; at midnight the date. */
export function tick(time, step, facts, first) {
  if (facts.axis === "position") return count(Math.round(time));
  if (!facts.unix) return `${value(Number((time - first).toFixed(4)), 8)} s`;
  const date = new Date(time * 1000);
  const midnight = Math.round((time + offset(facts.zone, time)) * 1000) % 86_400_000 === 0;
  if (step >= 86400 || midnight) return format(facts.zone, { day: "numeric", month: "short" }).format(date);
  const options = { hour: "2-digit", minute: "2-digit" };
  if (step < 60) options.second = "2-digit";
  if (step < 1) options.fractionalSecondDigits = step < 0.1 ? 3 : 1;
  return format(facts.zone, options).format(date);
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];

/** A round distance of ticks, so that there are at most so many. */
export function step(span, most, isTime) {
  const least = span / most;
  if (isTime && least >= 0.5 && least <= 172800) return STEPS.find((s) => s >= least);
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((s) => s * power >= least);
}
