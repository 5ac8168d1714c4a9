-- Sends the CT series of a study to Groundglass when the study has stopped growing.
-- The answer makes the study grow again, so its CT is sent again; the node knows the images and does nothing.
function OnStableStudy(studyId, tags, metadata)
  for _, series in pairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    if series['MainDicomTags']['Modality'] == 'CT' then
      RestApiPost('/modalities/groundglass/store', series['ID'])
    end
  end
end
