// Numbers and times as text.

const counts = new Intl.NumberFormat("en");
const values = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });

/** 1234 as 1,234. */
export const count = (number) => counts.format(number);

/** A measured value with six significant digits; scientific if very large or small. */
export function value(number) {
  const size = Math.abs(number);
  if (size && (size >= 1e12 || size < 1e-4)) return number.toExponential(3);
  return values.format(number);
}

/** A share between 0 and 1 as a percentage; only exact 0 and 1 are shown as 0% and 100%. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  if (share === 0) return "0%";
  if (share > 0 && share < 0.001) return "< 0.1%";
  if (share < 1 && share > 0.999) return "> 99.9%";
  const digits = share < 0.0995 ? 1 : 0;
  if (share < 1 && share >= 0.995) return "99%";
  return `${(share * 100).toFixed(digits)}%`;
}

/** A score; the server sends null if it is not finite. */
export function score(number) {
  return number === null || number === undefined ? "–" : number.toFixed(2);
}

/** A change, with its sign. */
export function signed(number, digits = 2) {
  const text = Math.abs(number).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${number < 0 ? "−" : "+"}${text}`;
}

/** "1 fact", "2 facts". */
export function plural(number, singular, pluralForm = `${singular}s`) {
  return `${count(number)} ${number === 1 ? singular : pluralForm}`;
}

/** 1 as 1st. */
export function ordinal(number) {
  const last = number % 100;
  const ending = last > 10 && last < 14 ? "th" : (["th", "st", "nd", "rd"][number % 10] ?? "th");
  return `${count(number)}${ending}`;
}

/** A time in the time zone and format of the reader. */
export function dateTime(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
