// The time of a request: the present, or the next time that it is a weekday and an hour.

export const WEEKDAYS = [
  "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
];

const two = (number) => String(Math.floor(Math.abs(number))).padStart(2, "0");

/** Return a moment as RFC 3339 with the local offset: the hour that matters is the user's. */
export function withOffset(date) {
  const offset = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + offset * 60000).toISOString().slice(0, -1);
  return local + (offset < 0 ? "-" : "+") + two(offset / 60) + ":" + two(offset % 60);
}

/** Return the weekday of a date, Monday being 0. */
export const weekdayOf = (date) => (date.getDay() + 6) % 7;

/** Return the next moment, at most a week away, of a weekday and an hour: no event is after it. */
export function next(weekday, hour, from = new Date()) {
  const days = (weekday - weekdayOf(from) + 7) % 7;
  const found = new Date(from.getFullYear(), from.getMonth(), from.getDate() + days, hour);
  if (found <= from) { found.setDate(found.getDate() + 7); }
  return found;
}

/** Return the local parts of RFC 3339 text, in its own offset: the user's clock, not this one's. */
export function local(text) {
  const [date, time] = text.split("T");
  const [hour, minute] = time.split(":").map(Number);
  const day = new Date(date + "T00:00:00Z");
  const name = WEEKDAYS[(day.getUTCDay() + 6) % 7].slice(0, 3);
  return { date, hour, minute, text: name + " " + date + " " + two(hour) + ":" + two(minute) };
}
