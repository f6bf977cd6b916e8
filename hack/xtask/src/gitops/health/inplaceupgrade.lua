-- A run that waits for a person who is to approve or to resume it is Suspended; one that waits for an hour or for
-- others goes on by itself.
local ready = conditions["Ready"]
local held = conditions["Held"]
local paused = obj.spec.mode == "Paused"

if is("Reconciling") then
  health.message = conditions["Reconciling"].reason .. ": " .. conditions["Reconciling"].message
elseif is("Stalled") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].reason .. ": " .. conditions["Stalled"].message
elseif is("Ready") then
  health.status = paused and "Suspended" or "Healthy"
  health.message = ready.message
elseif ready ~= nil then
  local approval = is("Held") and held.reason == "ApprovalRequired"
  if paused or ready.reason == "Paused" or ready.reason == "PlanOnly" or (ready.reason == "Held" and approval) then
    health.status = "Suspended"
  end
  health.message = ready.reason .. ": " .. ready.message
end

return health
