if is("Stalled") then
  health.status = "Degraded"
  health.message = conditions["Stalled"].reason .. ": " .. conditions["Stalled"].message
elseif is("Ready") then
  health.status = "Healthy"
  health.message = conditions["Ready"].message
elseif is("Reconciling") then
  health.message = conditions["Reconciling"].reason .. ": " .. conditions["Reconciling"].message
end

return health
